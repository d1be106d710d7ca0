"""boto 2: an API version of 2014, lists of one for a value, its own signatures."""

import os
import sys
import types
import urllib.parse

# boto is older than Python 3.12, which has no such module any more.
sys.modules.setdefault("imp", types.ModuleType("imp"))
os.environ["S3_USE_SIGV4"] = os.environ["EC2_USE_SIGV4"] = "True"
import boto.ec2.connection  # noqa: E402
import boto.ec2.regioninfo  # noqa: E402

at = urllib.parse.urlparse(os.environ["AWS_ENDPOINT_URL"])
region = boto.ec2.regioninfo.RegionInfo(name="us-east-1", endpoint=at.hostname)
ec2 = boto.ec2.connection.EC2Connection(
    os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"], is_secure=False, port=at.port, region=region,
)
ec2.auth_region_name, ec2.auth_service_name = "us-east-1", "ec2"
image = [one for one in ec2.get_all_images(owners=["amazon"]) if one.name == "demo"][0]
instance = ec2.run_instances(image.id, instance_type="t3.micro", user_data="#!/bin/sh\n").instances[0]
ec2.create_tags([instance.id], {"Name": "two", "Empty": ""})
assert ec2.get_only_instances([instance.id])[0].tags["Name"] == "two"
assert ec2.get_console_output(instance.id).instance_id == instance.id
volume = ec2.create_volume(1, ec2.get_all_zones()[0].name)
snapshot = ec2.create_snapshot(volume.id, "two")
assert ec2.get_all_snapshots([snapshot.id])[0].description == "two"
assert ec2.delete_snapshot(snapshot.id) and ec2.delete_volume(volume.id)
assert ec2.terminate_instances([instance.id])[0].id == instance.id
try:
    ec2.get_all_images(["ami-00000000000000000"])
    raise SystemExit("an image that is not there was found")
except boto.exception.EC2ResponseError as error:
    assert error.error_code == "InvalidAMIID.NotFound", error
