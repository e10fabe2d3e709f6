#!/usr/bin/env python3
"""An independent client of lockstep.v1, written from docs/protocol.md alone. It holds the newest token of each grant, acks, asks for a
refresh when one is past its expiry, reconnects and resumes, and prints one JSON line for each thing that it learns."""
import argparse, hashlib, json, math, os, random, re, requests, time
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.sync.client import connect

# What is read: "field:kind"; "field?:kind" may be absent or null, "field:=kind" may be null, "a|b" is a choice of words.
SHAPES = dict(shape.split(None, 1) for shape in """
    welcome session:uuid user:user epoch:epoch time:num heartbeat:num resume:uptodate|delta|reset; synced cursor:text;
    token grant:grant version:num seq:num cursor:text access_token:text token_type:text scope?:text expires_at:=num refreshed_at:num
    cause:refresh|login; elected grant:grant lease:{Offer} from_version:num; Offer id:uuid expires_in:num renew_every:num;
    status grant:grant version:num seq:num cursor:text health:ok|refreshing|suspect|reauth_required|deleted refreshing_by?:uuid
    lease_expires_in?:num reason?:text retry_at?:num login_url?:text; lease grant:grant id:uuid expires_in:num;
    redeem grant:grant lease:uuid from_version:num refresh_token:text token_endpoint:text client_id:text request_format:form|json
    scope?:text send_within:num deadline:num; done id:id grant:grant version:num; GrantVersion grant:grant version:num;
    goaway reason:text reconnect_after:{After}; After min_ms:num max_ms:num;
    error id?:id grant?:grant code:code message:text retry_at?:num;
    PollAnswer epoch:epoch time:num cursor:text resume:uptodate|delta|reset tokens:[token] statuses:[status];
    Problem type:text title:text status:u16 code:code detail:text retry_at?:num""".split(";"))
NAME = r"(?!\.{1,2}(?:/|$))[A-Za-z0-9._@-]{1,%d}"
TEXTS = {
    "text": r"(?s).*", "id": r"(?s).{0,128}", "num": "(?!)", "u16": "(?!)", "user": NAME % 128, "grant": NAME % 64 + "/" + NAME % 64,
    "uuid": r"(?i)[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "epoch": r"(?i)[0-9a-f]{16}",
    "code": "bad_frame|unknown_grant|not_elected|superseded|rate_limited|reauth_required|suspect|unavailable|too_large|unauthorized"}

def read(kind, given):
    """The canonical form of a value of a kind; of an object the known fields, without those that are absent."""
    if kind[0] == "[" and isinstance(given, list):
        return [read("{%s}" % kind[1:-1], one) for one in given]
    if kind[0] == "{" and isinstance(given, dict):
        fields = re.findall(r"(\w+)(\??:=?)(\S+)", SHAPES.get(kind[1:-1], kind[1:-1]))
        return {field: None if mark == ":=" and given[field] is None else read(inner, given.get(field))
                for field, mark, inner in fields if mark != "?:" or given.get(field) is not None}
    if kind in ("num", "u16", "id") and type(given) in (int, float) and 0 <= given < (2**16 if kind == "u16" else 2**53) and given % 1 == 0:
        return int(given)
    if isinstance(given, str) and re.fullmatch(TEXTS.get(kind, kind), given):
        return given
    raise ValueError(f"not a {kind}")

def decode(text, body=None):
    """Reads a frame of a hub, or else an HTTP `body`."""
    once = lambda pairs: dict(pairs) if len(dict(pairs)) == len(pairs) else read("once", "a name that comes twice")
    given = json.loads(text, object_pairs_hook=once, parse_constant=lambda word: read("num", word))
    frame = {} if body else read("{type:%s}" % "|".join(filter(str.islower, SHAPES)), given)
    return {**frame, **read("{%s}" % (body or frame["type"]), given)}

def after_close(code):
    return "stop" if code in (4400, 4401, 4403) else "end" if code == 4409 else "reconnect"

class Client(argparse.Namespace):
    cursor, seq, skew, tries, leave, good_until, renewed = None, 0, 0, 0, math.inf, 0, False
    grants, asked = {}, {}  # newest frame by grant; when to ask again, by (grant, version)
    def say(self, event, **what):
        print(json.dumps({"event": event, **what}), flush=True)
    def bearer(self):
        if time.monotonic() > self.good_until:
            form = {"grant_type": "refresh_token", "refresh_token": open(self.device_token_file or os.devnull).read().strip()}
            answer = requests.post(self.hub + "/oauth/token", data=form, timeout=30)
            answer.raise_for_status()
            with open(self.device_token_file + ".new", "w") as file:
                file.write(answer.json()["refresh_token"]), file.flush(), os.fsync(file.fileno())
            os.replace(file.name, self.device_token_file)  # on disk, before the access token is used
            self.good_until = time.monotonic() + answer.json()["expires_in"] - 30
            self.access_token, self.device_id = answer.json()["access_token"], answer.json()["device_id"]
        return self.access_token
    def handle(self, frame):
        if frame["type"] == "welcome":
            self.skew, self.renewed = frame["time"] - time.time(), False
            if frame["resume"] == "reset":
                self.cursor, self.seq, self.grants, self.asked = None, 0, {}, {}
            self.say("resumed", resume=frame["resume"], transport=self.transport)
        elif frame["type"] in ("token", "status"):
            held = self.grants.get(frame["grant"], {"seq": -1})
            if frame["seq"] > held["seq"] or frame["seq"] == held["seq"] and frame["type"] == "status":
                self.grants[frame["grant"]] = {**({} if frame.get("health") == "deleted" else held), **frame}
                if frame["seq"] >= self.seq:
                    self.seq, self.cursor = frame["seq"], frame["cursor"]
                shown = {name: frame.get(name) for name in ("grant", "version", "seq", "health", "expires_at")}
                self.say(frame["type"], sha256=hashlib.sha256(frame.get("access_token", "").encode()).hexdigest(), **shown)
        elif frame["type"] == "error":  # asks again when it was told to, else not before a new version
            self.asked.update({ask: frame.get("retry_at", math.inf) for ask in self.asked if ask[0] == frame.get("grant")})
            self.say("refused", grant=frame.get("grant"), code=frame["code"])
        elif frame["type"] == "goaway":
            self.leave = time.monotonic() + random.uniform(*frame["reconnect_after"].values()) / 1000
        elif frame["type"] == "synced":
            self.cursor = frame["cursor"]
    def due(self):
        """What is past its expiry and to be asked for now, and the seconds until something else is."""
        asks = {(grant, held["version"]): held.get("expires_at") or math.inf for grant, held in self.grants.items()}
        asks = {ask: max(at, self.asked.get(ask, 0)) - time.time() - self.skew for ask, at in asks.items()}
        found = [ask for ask, wait in asks.items() if wait <= 0]
        self.asked.update(dict.fromkeys(found, time.time() + self.skew + 90))
        return found, min([20, *(wait for wait in asks.values() if wait > 0)])
    def session(self):
        with connect(self.hub.replace("http", "ws", 1) + "/v1/ws", subprotocols=["lockstep.v1"]) as ws:
            send, acked = lambda kind, **fields: ws.send(json.dumps({"type": kind, **fields})), 0
            send("hello", token=self.bearer(), device={"id": self.device_id, "app": "python"}, cursor=self.cursor, state="active")
            while time.monotonic() < self.leave:
                found, wait = self.due()
                for grant, version in found:
                    send("refresh", id=version, grant=grant, rejected_version=version, reason="expired")
                try:
                    self.handle(decode(ws.recv(min(wait, self.leave - time.monotonic()))))
                except (TimeoutError, ValueError, KeyError):
                    continue  # nothing came, or no frame
                if self.seq > acked:
                    send("ack", seq=(acked := self.seq))
    def poll(self):
        found, wait = self.due()
        auth = {"Authorization": "Bearer " + self.bearer()}
        for grant, version in found:
            answer = requests.post(f"{self.hub}/v1/grants/{grant}/refresh", json={"rejected_version": version}, headers=auth, timeout=75)
            if not answer.ok:
                self.handle({**decode(answer.text, "Problem"), "type": "error", "grant": grant})
        answer = requests.get(f"{self.hub}/v1/tokens", params={"after": self.cursor, "wait": math.ceil(wait)}, headers=auth, timeout=75)
        answer.raise_for_status()
        if answer.status_code == 200:
            page = decode(answer.text, "PollAnswer")
            frames = [{"type": kind, **one} for kind, all in (("token", page["tokens"]), ("status", page["statuses"])) for one in all]
            for frame in [{**page, "type": "welcome"}, *sorted(frames, key=lambda one: one["seq"]), {**page, "type": "synced"}]:
                self.handle(frame)
    def run(self):
        while True:
            began, self.leave = time.monotonic(), math.inf
            try:
                self.session() if self.transport == "ws" else self.poll()
                continue
            except (ConnectionClosed, InvalidHandshake, OSError) as error:
                answer, close = getattr(error, "response", None), getattr(error, "rcvd", None)
            status, least = (1006, 0) if answer is None else (answer.status_code, float(answer.headers.get("Retry-After", 0)))
            code = close.code if close else {400: 4400, 401: 4401, 403: 4403}.get(status, 1006)
            self.tries = 0 if time.monotonic() - began > 5 else self.tries + 1
            self.say("closed", code=code, then=after_close(code))
            if code == 4401 and self.device_token_file and not self.renewed:
                self.good_until, self.renewed = 0, True
            elif after_close(code) != "reconnect":
                return
            jitter = random.uniform(0, min(30, 0.5 * 2**self.tries))
            time.sleep(max(least, self.leave - time.monotonic() if self.leave < math.inf else jitter))

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("--hub", "--device-token-file", "--access-token", "--device-id"):
        parser.add_argument(name)
    parser.add_argument("--transport", choices=("ws", "poll"), default="ws")
    client = parser.parse_args(namespace=Client())
    client.good_until = math.inf if client.access_token else 0
    os.umask(0o077)  # nobody else reads the file of the token
    client.run()
