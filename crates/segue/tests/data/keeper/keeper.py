"""Counts under a key of shared state (`count`), or says the outcome that it is given (`say`, with `large` as a value of so many bytes)."""
import json
import os
import sys

task = json.load(sys.stdin)
given = task["input"]
if "say" in given:
    outcome = given["say"]
    if "large" in given:
        outcome["state"]["put"][0]["value"] = "x" * given["large"]
else:
    key = given["count"]
    known = task["state"]["values"].get(key)
    value, expect = (known["value"] + 1, known["version"]) if known else (1, "absent")
    seen = {"state": task["state"], "input": given, "traceparent": os.environ.get("TRACEPARENT")}
    put = [{"key": key, "value": value, "expect": expect}]
    outcome = {"outcome": "complete", "output": seen, "state": {"put": put}}
print(json.dumps({"segue": 1, **outcome}))
