"""The independent client passes the golden vectors: `python3 -m unittest discover tests/python`."""
import contextlib, copy, io, json, pathlib, unittest
from unittest import mock

import lockstep_client

VECTORS = pathlib.Path(__file__).parents[2] / "protocol" / "vectors"


def files(side):
    found = sorted(VECTORS.glob(f"{side}.*.json"))
    assert found, f"no vectors in {VECTORS}"
    return [(file.name, json.loads(file.read_text())) for file in found]


def example(kind):
    return copy.deepcopy(dict(files("hub"))[f"hub.{kind}.json"]["valid"][0]["frame"])


class Paper:
    """A WebSocket that says what it was given, and writes down what it is told."""

    def __init__(self, heard, sent):
        self.heard, self.sent = iter(heard), sent

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def send(self, text):
        self.sent.append(json.loads(text))

    def recv(self, _):
        frame = next(self.heard, None)
        if frame is None:
            raise ConnectionError("the end")
        return json.dumps(frame)


class Vectors(unittest.TestCase):
    def check(self, name, vectors, body=None):
        for vector in vectors["valid"]:
            with self.subTest(f"{name}: {vector['name']}"):
                read = lockstep_client.decode(vector["text"], body)
                self.assertEqual(read, vector["frame"])
                self.assertEqual(json.dumps(read, sort_keys=True), json.dumps(vector["frame"], sort_keys=True), "7 is not 7.0")
        for vector in vectors["invalid"]:
            with self.subTest(f"{name}: {vector['name']}"):
                with self.assertRaises((ValueError, KeyError)):
                    lockstep_client.decode(vector["text"], body)

    def test_frames_of_a_hub(self):
        for name, vectors in files("hub"):
            self.check(name, vectors)

    def test_bodies_of_answers(self):
        checked = set()
        for name, vectors in files("http"):
            body = {"Token": "token"}.get(vectors["definition"], vectors["definition"])
            if body in lockstep_client.SHAPES:
                checked.add(body)
                self.check(name, vectors, body)
        self.assertEqual(checked, {"token", "PollAnswer", "GrantVersion", "Problem"})

    def test_frames_that_the_client_writes(self):
        """A session on a wire of paper: what is sent has the fields that the vectors have, and acks what was heard."""
        examples = {vectors["type"]: vectors["valid"] for name, vectors in files("client") if "type" in vectors}
        heard = [example(name) for name in ("welcome", "token", "synced")]
        client = lockstep_client.Client(hub="http://hub", transport="ws", access_token="at", device_id=heard[0]["session"])
        client.good_until, sent = float("inf"), []
        heard[0]["time"] = heard[1]["expires_at"] + 1  # the token is past its expiry by the clock of the hub
        with mock.patch.object(lockstep_client, "connect", lambda *_, **__: Paper(heard, sent)):
            with contextlib.redirect_stdout(io.StringIO()), self.assertRaises(ConnectionError):
                client.session()
        self.assertEqual([frame["type"] for frame in sent], ["hello", "ack", "refresh"])
        self.assertEqual((sent[1]["seq"], sent[2]["rejected_version"]), (heard[1]["seq"], heard[1]["version"]))
        self.assertEqual(client.cursor, heard[2]["cursor"])
        for frame in sent:
            given = {name for name, value in frame.items() if value is not None}
            fields = [set(vector["frame"]) for vector in examples[frame["type"]]]
            self.assertIn(given, fields + [set.intersection(*fields)])

    def test_what_follows_a_close(self):
        for row in json.loads((VECTORS / "close.json").read_text())["after"]:
            self.assertEqual(lockstep_client.after_close(row["code"]), row["then"], row["code"])


if __name__ == "__main__":
    unittest.main()
