"""The independent client takes part in the storm: six processes on one grant whose token dies every few seconds, half of them on long-poll.

Runs the real hub and the strict authorization server of `client-demo`, found in `LOCKSTEP_BIN` (a directory) or `target/debug`."""
import json, os, pathlib, signal, subprocess, sys, tempfile, threading, time, unittest, urllib.request

ROOT = pathlib.Path(__file__).parents[2]
BIN = pathlib.Path(os.environ.get("LOCKSTEP_BIN", ROOT / "target" / "debug"))
ADMIN = "an-admin-token"
ROTATIONS = 6


class Process:
    """A child that prints JSON lines."""

    def __init__(self, *command, log):
        environment = {**os.environ, "LOCKSTEP_ADMIN_TOKEN": ADMIN}
        with open(log, "a") as stderr:
            self.child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True, env=environment)
        self.lines, self.changed = [], threading.Condition()
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.child.stdout:
            with self.changed:
                self.lines.append(json.loads(line))
                self.changed.notify_all()

    def until(self, wanted, seconds=60):
        """Waits for a line that is wanted, and gives it back."""
        with self.changed:
            found = lambda: next((line for line in self.lines if wanted(line)), None)
            if not self.changed.wait_for(lambda: found() is not None, seconds):
                raise AssertionError(f"not within {seconds} s; so far {self.lines[-5:]}")
            return found()

    def end(self, how=signal.SIGKILL):
        self.child.send_signal(how)
        self.child.wait(30)
        self.child.stdout.close()


def call(method, url, body=None):
    data = json.dumps(body).encode() if body is not None else None
    headers = {"Authorization": f"Bearer {ADMIN}", "Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(url, data, headers, method=method), timeout=60) as answer:
        return json.loads(answer.read() or "null")


class Storm(unittest.TestCase):
    def start(self, *command):
        process = Process(*map(str, command), log=self.dir / f"{pathlib.Path(command[0]).name}.log")
        self.addCleanup(process.end)
        return process

    def start_hub(self, listen="127.0.0.1:0", admin="127.0.0.1:0"):
        """`lead` keeps the hub from refreshing ahead: the devices must ask, all at once."""
        (self.dir / "hub.toml").write_text(f"""
            [server]
            listen = "{listen}"
            admin_listen = "{admin}"
            drain = "3s"
            [providers.example]
            token_endpoint = "http://{self.provider}/token"
            client_id = "app"
            lead = "0s"
            reject_interval = "0s"
        """)
        hub = self.start(BIN / "lockstep-hub", "serve", "--config", self.dir / "hub.toml")
        ready = hub.until(lambda line: "listening" in line)
        return hub, ready["listening"], ready["admin"]

    def setUp(self):
        for name in ("lockstep-hub", "client-demo"):
            self.assertTrue((BIN / name).exists(), f"no {name} in {BIN}: cargo build")
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.dir = pathlib.Path(folder.name)
        authserver = self.start(BIN / "client-demo", "authserver", "--access-ttl", "4s")
        self.provider = authserver.until(lambda line: "listening" in line)["listening"]

    def enrol(self, name):
        device = call("POST", f"http://{self.admin}/admin/v1/users/alice/devices", {"kind": "cli", "name": name})
        file = self.dir / name
        file.write_text(device["device_refresh_token"])
        return file

    def all_acked(self, within):
        """Waits for the moment between two rotations at which nobody is behind."""
        until = time.monotonic() + within
        while True:
            view = call("GET", f"http://{self.admin}/admin/v1/users/alice")
            transports = sorted(device["transport"] or "none" for device in view["devices"])
            if transports == ["poll"] * 3 + ["ws"] * 3 and all(device["acked"] == view["seq"] for device in view["devices"]):
                return
            self.assertLess(time.monotonic(), until, f"still behind: {view}")
            time.sleep(0.05)

    def test_one_redeem_for_each_expiry_over_both_transports_and_a_restart(self):
        hub, self.listen, self.admin = self.start_hub()
        master = call("POST", f"http://{self.provider}/control/grants")["refresh_token"]
        grant = f"http://{self.admin}/admin/v1/users/alice/grants/example/main"
        first = call("PUT", grant, {"refresh_token": master})["version"]
        script = pathlib.Path(__file__).with_name("lockstep_client.py")
        clients = [
            self.start(sys.executable, script, "--hub", f"http://{self.listen}", "--transport", how, "--device-token-file", self.enrol(f"{how}{n}"))
            for how in ("ws", "poll") for n in range(3)
        ]
        newer = lambda than: lambda line: line["event"] == "token" and line["version"] >= than
        for client in clients:
            client.until(newer(first + ROTATIONS // 2))
        hub.end(signal.SIGTERM)
        self.start_hub(self.listen, self.admin)
        for client in clients:
            client.until(newer(first + ROTATIONS))
        self.all_acked(within=20)

        for client in clients:
            client.end()
            tokens = [line for line in client.lines if line["event"] == "token"]
            versions = [line["version"] for line in tokens]
            self.assertEqual(versions, sorted(set(versions)), "a version came twice, or went back")
            self.assertFalse([line for line in client.lines if line.get("then") in ("stop", "end")])
        said = {(line["version"], line["sha256"]) for client in clients for line in client.lines if line["event"] == "token"}
        self.assertEqual(len(said), len({version for version, _ in said}), "two tokens of one version")
        stats = call("GET", f"http://{self.provider}/control/stats")
        newest = call("GET", f"http://{self.admin}/admin/v1/users/alice")["grants"][0]["version"]
        # Version 1 is what the operator brought; each one above it cost one redeem.
        self.assertEqual((stats["rotations"], stats["reuses"], stats["invalid_grants"]), (newest - 1, 0, 0), stats)


if __name__ == "__main__":
    unittest.main()
