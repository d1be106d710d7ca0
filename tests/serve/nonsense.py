"""Signed requests that are none of the service's."""

import re
import urllib.error
import urllib.request

import boto3
import botocore.auth
import botocore.awsrequest

session = boto3.Session()
url = session.client("ec2").meta.endpoint_url + "/"


def ask(body, service="ec2", alter=None, date=None):
    """The code and the status of an answer."""
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    request = botocore.awsrequest.AWSRequest("POST", url, data=body, headers=headers)
    botocore.auth.SigV4Auth(session.get_credentials(), service, session.region_name).add_auth(request)
    data, headers = request.body, dict(request.headers.items())
    if alter:
        data = alter(data)
    try:
        answer = urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=60)
    except urllib.error.HTTPError as error:
        answer = error
    text = answer.read().decode()
    found = re.search("<Code>(.*?)</Code>", text)
    # The EBS direct APIs answer in JSON.
    return found[1] if found else answer.headers.get("x-amzn-ErrorType"), answer.status, text


V = "Version=2016-11-15"
for body, code in [
    ("", "MissingAction"),
    (V, "MissingAction"),
    (f"Action=Nonsense&{V}", "InvalidAction"),
    (f"Action=describeinstances&{V}", "InvalidAction"),
    (f"Action=DescribeInstances&Version=2099-01-01", "NoSuchVersion"),
    (f"Action=DescribeInstances&Version=x", "NoSuchVersion"),
    (f"Action=DescribeInstances&Version=2014-10-01", None),
    (f"Action=DescribeInstances&{V}&Bogus=1", "UnknownParameter"),
    (f"Action=DescribeInstances&{V}&InstanceId.1.x=1", "UnknownParameter"),
    (f"Action=DescribeInstances&{V}&InstanceId.1=../../etc/passwd", None),
    (f"Action=DescribeInstances&{V}&Filter.1.Name=nonsense&Filter.1.Value.1=x", "InvalidParameterValue"),
    (f"Action=DescribeInstances&{V}&MaxResults=1e3", "InvalidParameterValue"),
    (f"Action=RunInstances&{V}&ImageId=demo&MinCount=1", "MissingParameter"),
    (f"Action=RunInstances&{V}&ImageId=demo&MinCount=-1&MaxCount=1", "InvalidParameterValue"),
    (f"Action=RunInstances&{V}&ImageId=demo&MinCount=1&MaxCount=99999999999", "InvalidParameterValue"),
    (f"Action=RunInstances&{V}&ImageId=demo&MinCount=1&MaxCount=1&UserData=%00", "InvalidParameterValue"),
    (f"Action=CreateTags&{V}&ResourceId.1=i-1&Tag.1.Key=%01%FF&Tag.1.Value=%3C!%5BCDATA%5B", None),
    (f"Action=GetCallerIdentity&{V}", "InvalidAction"),
    ("&".join([f"Action=DescribeInstances&{V}"] + [f"InstanceId.{n}=i" for n in range(100_000)])[:1_000_000], "MalformedQueryString"),
]:
    found, status, text = ask(body)
    if code is None:
        assert status in (200, 400), (body[:100], text)
    else:
        assert (found, status // 100) == (code, 4), (body[:100], found, text[:300])
for service, code in ("s3", "InvalidAction"), ("ebs", "UnknownOperationException"), ("x" * 1000, "InvalidAction"):
    assert ask(f"Action=DescribeInstances&{V}", service)[0] == code, service
changed = ask(f"Action=DescribeRegions&{V}", alter=lambda data: data + b"&DryRun=true")
assert changed[0] == "SignatureDoesNotMatch", changed
assert ask(f"Action=DescribeRegions&{V}")[1] == 200
