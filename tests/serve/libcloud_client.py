"""Apache Libcloud: GET, its parameters in the query, lists from 0."""

import os
import time
import urllib.parse

from libcloud.compute.providers import get_driver
from libcloud.compute.types import NodeState, Provider

at = urllib.parse.urlparse(os.environ["AWS_ENDPOINT_URL"])
ec2 = get_driver(Provider.EC2)(
    os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"], region="us-east-1",
    host=at.hostname, port=at.port, secure=False, signature_version="4",
)
image = ec2.get_image([one for one in ec2.list_images(ex_owner="amazon") if one.name == "demo"][0].id)
assert ec2.list_locations(), "there is no zone"
pair = ec2.create_key_pair("libcloud")
assert "PRIVATE KEY" in pair.private_key
assert "libcloud" in [one.name for one in ec2.list_key_pairs()]
size = [one for one in ec2.list_sizes() if one.id == "t3.micro"][0]
node = ec2.create_node(name="lib", image=image, size=size, ex_keyname="libcloud", ex_userdata="#!/bin/sh\n")
deadline = time.time() + 30
while ec2.list_nodes(ex_node_ids=[node.id])[0].state in (NodeState.PENDING, NodeState.RUNNING):
    assert time.time() < deadline, "the demo guest powers off"
    time.sleep(0.2)
found = ec2.list_nodes(ex_node_ids=[node.id])[0]
assert found.name == "lib", found
assert ec2.ex_create_tags(node, {"Env": "test", "Empty": ""})
assert ec2.ex_describe_tags(node)["Env"] == "test"
assert ec2.ex_delete_tags(node, {"Env": "test"})
assert ec2.ex_get_console_output(node)["output"]
volume = ec2.create_volume(1, "lib-data")
snapshot = ec2.create_volume_snapshot(volume, "lib-snapshot")
assert [one.id for one in ec2.list_snapshots(snapshot=snapshot)] == [snapshot.id]
assert ec2.destroy_volume_snapshot(snapshot) and ec2.destroy_volume(volume)
if ec2.ex_list_networks():
    group = ec2.ex_create_security_group("lib", "lib")["group_id"]
    assert ec2.ex_authorize_security_group_ingress(group, 22, 22, cidr_ips=["0.0.0.0/0"])
    assert ec2.ex_delete_security_group_by_id(group)
assert ec2.delete_key_pair(pair) and ec2.destroy_node(node)
try:
    ec2.get_image("ami-00000000000000000")
    raise SystemExit("an image that is not there was found")
except Exception as error:
    assert "InvalidAMIID.NotFound" in str(error), error
