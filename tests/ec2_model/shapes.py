"""Compares answers with EC2's service model, as botocore has it.

Reads lines of JSON from standard input, each {"Operation": …} or {"Shape": …} with an "Answer", and prints a line for each
thing that the model does not know or has otherwise. An object's key `Spore` is Spore's own.
"""

import json
import re
import sys

import botocore.loaders

MODEL = botocore.loaders.Loader().load_service_model("ec2", "service-2")
SHAPES = MODEL["shapes"]
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3})?Z")
# Enumerations that Spore adds to: a type for the built-in guest, and what else an image is referred to by.
OPEN = {"InstanceType", "ImageReferenceResourceType", "PermissionGroup"}


def compare(name, value, path):
    shape = SHAPES[name]
    kind = shape["type"]
    wrong = lambda what: print(f"{path}: {what}: {value!r}")
    if kind == "structure":
        if not isinstance(value, dict):
            return wrong(f"{name} is an object")
        members = shape.get("members", {})
        for required in set(shape.get("required", [])) - set(value):
            wrong(f"{name} has {required}")
        for key, below in value.items():
            if key == "Spore":
                continue
            if key not in members:
                wrong(f"{name} has no {key}")
            else:
                compare(members[key]["shape"], below, f"{path}.{key}")
    elif kind == "list":
        if not isinstance(value, list):
            return wrong(f"{name} is a list")
        for index, below in enumerate(value):
            compare(shape["member"]["shape"], below, f"{path}[{index}]")
    elif kind in ("integer", "long"):
        if not isinstance(value, int) or isinstance(value, bool):
            wrong("a number is due")
    elif kind == "boolean":
        if not isinstance(value, bool):
            wrong("true or false is due")
    elif not isinstance(value, str):
        wrong("a text is due")
    elif kind == "timestamp" and not TIME.fullmatch(value):
        wrong("a time is due")
    elif "enum" in shape and value not in shape["enum"] and name not in OPEN:
        wrong(f"{name} is one of {shape['enum']}")


for line in sys.stdin:
    asked = json.loads(line)
    shape = asked.get("Shape") or MODEL["operations"][asked["Operation"]]["output"]["shape"]
    compare(shape, asked["Answer"], asked.get("Operation") or shape)
