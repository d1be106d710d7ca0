"""Launches two instances under one token, eight times at once, and once with other parameters."""

import concurrent.futures

import boto3
import botocore.exceptions

ec2 = boto3.client("ec2")
launch = lambda **more: ec2.run_instances(
    **({"ImageId": "demo", "MinCount": 2, "MaxCount": 2, "ClientToken": "one"} | more)
)
with concurrent.futures.ThreadPoolExecutor(8) as pool:
    launched = list(pool.map(lambda _: launch(), range(8)))
ids = {tuple(i["InstanceId"] for i in one["Instances"]) for one in launched}
assert len(ids) == 1 and len(*ids) == 2, ids
assert all(one["Instances"][0]["ClientToken"] == "one" for one in launched)
for other in ({"MaxCount": 3}, {"InstanceType": "t2.nano"}):
    try:
        launch(**other)
        raise SystemExit(f"{other} was launched under the same token")
    except botocore.exceptions.ClientError as error:
        assert error.response["Error"]["Code"] == "IdempotentParameterMismatch", error
