"""Makes the first corpus: of decode_client and decode_hub from the texts of the golden vectors, of others from seeds/."""
import hashlib, json, pathlib

here = pathlib.Path(__file__).parent
for file in (here.parent / "protocol" / "vectors").glob("*.json"):
    side = file.name.split(".")[0]
    if side not in ("client", "hub"):
        continue
    corpus = here / "corpus" / f"decode_{side}"
    corpus.mkdir(parents=True, exist_ok=True)
    vectors = json.loads(file.read_text())
    for vector in vectors["valid"] + vectors["invalid"]:
        text = vector["text"].encode()
        (corpus / hashlib.sha256(text).hexdigest()[:16]).write_bytes(text)

for seed in (here / "seeds").glob("*/*"):
    corpus = here / "corpus" / seed.parent.name
    corpus.mkdir(parents=True, exist_ok=True)
    (corpus / seed.name).write_bytes(seed.read_bytes())
