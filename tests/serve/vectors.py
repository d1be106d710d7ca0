"""botocore's protocol cases, turned round: what its clients send and read, as a service takes and answers it.

vectors.py cases DIR    writes DIR/cases.json: requests with what they say, answers that are to be given; DIR has the sdist
vectors.py answers DIR  reads DIR/answers.json: what was answered to each, which botocore's parsers must read as it was meant
"""

import base64
import email.utils
import importlib.machinery
import importlib.util
import json
import math
import pathlib
import sys
import tarfile
import time
import urllib.parse

import botocore.model
import botocore.parsers

HERE = pathlib.Path(__file__).resolve().parent
loader = importlib.machinery.SourceFileLoader("service_model", str(HERE.parent.parent / "scripts/service-model"))
sys.dont_write_bytecode = True
service_model = importlib.util.module_from_spec(importlib.util.spec_from_loader("service_model", loader))
loader.exec_module(service_model)

PROTOCOLS = ("ec2", "query")
NAMESPACE = "https://example.com/"
# What SDKs send for a member that is an idempotency token, where their caller says nothing.
TOKEN = "00000000-0000-4000-8000-000000000000"
# No number of JSON's, nor one that an action here has a use for.
NO_NUMBERS = ("NaN", "Infinity", "-Infinity")


def suites(sdist):
    """Each suite that is for us with its cases: those that botocore itself passes."""
    with tarfile.open(sdist) as tar:
        inside = {member.name.partition("/tests/unit/protocols/")[2]: member for member in tar.getmembers()}
        read = lambda name: json.load(tar.extractfile(inside[name]))
        ignored = read("protocol-tests-ignore-list.json")["protocols"]
        for side in ("input", "output"):
            for protocol in PROTOCOLS:
                passed_over = ignored.get(protocol, {}).get(side, {}).get("cases", [])
                for suite in read(f"{side}/{protocol}.json"):
                    cases = [case for case in suite["cases"] if case["id"] not in passed_over]
                    yield protocol, side, suite, cases


def text(shape, value):
    """A time or bytes as they are written."""
    if shape["type"] == "blob":
        return base64.b64encode(value.encode()).decode()
    form = shape.get("timestampFormat", "iso8601")
    if form == "unixTimestamp":
        return str(value)
    if form == "rfc822":
        return email.utils.formatdate(value, usegmt=True)
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(value))
    part = f"{value % 1:.3f}"[1:] if value % 1 else ""
    return f"{whole}{part}Z"


def written(shapes, name, value, asked):
    """A value as the service has it: times and bytes are texts; of a request (`asked`), nothing that is empty."""
    shape = shapes[name]
    if shape["type"] == "structure":
        members = dict(value)
        tokens = [key for key, member in shape["members"].items() if asked and member.get("idempotencyToken")]
        members |= {key: TOKEN for key in tokens if key not in members}
        found = {key: written(shapes, shape["members"][key]["shape"], one, asked) for key, one in members.items()}
        return {key: one for key, one in found.items() if not asked or one not in ("", [], {})}
    if shape["type"] == "list":
        return [written(shapes, shape["member"]["shape"], one, asked) for one in value]
    return text(shape, value) if shape["type"] in ("blob", "timestamp") else value


def tables(suite, case):
    """The suite's model as the service has models."""
    given = json.loads(json.dumps(case["given"]))
    output = given.get("output", {})
    if suite["metadata"]["protocol"] == "query" and suite["shapes"].get(output.get("shape"), {}).get("members"):
        output["resultWrapper"] = given["name"] + "Result"
    meta = suite["metadata"] | {"xmlNamespace": NAMESPACE}
    shapes = json.loads(json.dumps(suite["shapes"]))
    for shape in shapes.values():
        for member in shape.get("members", {}).values():
            if member.pop("flattened", False):
                # Models say this of a list's shape; the cases say it of one member that has it.
                own = member["shape"] + "Flattened"
                shapes = shapes | {own: shapes[member["shape"]] | {"flattened": True}}
                member["shape"] = own
    return service_model.tables({"metadata": meta, "operations": {given["name"]: given}, "shapes": shapes}, [given["name"]])


def cases(directory):
    made, without = [], {}
    for protocol, side, suite, found in suites(next(directory.glob("botocore-*.tar.gz"))):
        for case in found:
            one = {"id": case["id"], "protocol": protocol, "action": case["given"]["name"]}
            try:
                one["model"] = tables(suite, case)
            except NotImplementedError as error:
                without.setdefault(str(error), []).append(case["id"])
                continue
            if side == "input":
                body = case["serialized"].get("body")
                if body is None:
                    without.setdefault("the case says no body", []).append(case["id"])
                    continue
                one["parameters"] = urllib.parse.parse_qsl(body, keep_blank_values=True)
                shape = case["given"].get("input", {}).get("shape")
                said = written(suite["shapes"], shape, case["params"], True) if shape else {}
                one["request"] = None if any(value in NO_NUMBERS for value in said.values()) else said
            elif "error" in case:
                one["message"] = case["error"].get("Message", "")
            else:
                shape = case["given"].get("output", {}).get("shape")
                one["answer"] = written(suite["shapes"], shape, case["result"], False) if shape else {}
            made.append(one)
    (directory / "cases.json").write_text(json.dumps(made))
    for why, names in without.items():
        print(f"{why}: {', '.join(names)}", file=sys.stderr)


def same(value):
    """As the cases spell what a parser gives: bytes as text, no numbers by name."""
    if isinstance(value, dict):
        return {key: same(one) for key, one in value.items()}
    if isinstance(value, list):
        return [same(one) for one in value]
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, float) and not math.isfinite(value):
        return {"inf": "Infinity", "-inf": "-Infinity"}.get(str(value), "NaN")
    return value


def answers(directory):
    answered = json.loads((directory / "answers.json").read_text())
    for protocol, side, suite, found in suites(next(directory.glob("botocore-*.tar.gz"))):
        for case in found:
            if side != "output" or case["id"] not in answered:
                continue
            action = case["given"]["name"]
            model = botocore.model.ServiceModel(suite | {"operations": {action: case["given"]}})
            shape = botocore.model.OperationModel(case["given"], model).output_shape
            if protocol == "query" and shape and shape.members:
                shape.serialization["resultWrapper"] = action + "Result"
            of_time = lambda text: botocore.utils.parse_timestamp(text).timestamp()
            parser = botocore.parsers.PROTOCOL_PARSERS[protocol](timestamp_parser=of_time)
            code, body = answered.pop(case["id"])
            response = {"status_code": code, "headers": {}, "body": body.encode(), "context": {"operation_name": action}}
            read = same(parser.parse(response, shape))
            assert read.pop("ResponseMetadata")["RequestId"] == "requestid", case["id"]
            meant = case["result"] if "result" in case else {"Error": case["error"] | {"Code": "InvalidAction"}}
            if "Error" in meant:
                read = {"Error": {key: read["Error"][key] for key in ("Code", "Message")}}
            # A list is there in an answer even if it is empty.
            read = {key: value for key, value in read.items() if value != [] or key in meant}
            assert read == meant, f"{case['id']}: {read} instead of {meant}"
    assert not answered, f"these are no cases: {answered}"


{"cases": cases, "answers": answers}[sys.argv[1]](pathlib.Path(sys.argv[2]))
