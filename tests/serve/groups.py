"""The console's forms of security groups, launches with ports, and Auto Scaling groups. Makes networks, regions and groups, too. Arguments: an image of
one's own, and a directory for a region."""

import html
import os
import pathlib
import re
import sys
import time

import boto3
from pages import Browser

ec2, scaling = boto3.client("ec2"), boto3.client("autoscaling")
image = sys.argv[1]
browser = Browser()
keys = {"access_key_id": os.environ["AWS_ACCESS_KEY_ID"], "secret_access_key": os.environ["AWS_SECRET_ACCESS_KEY"]}
assert browser.ask("/console/login", keys) == 200


def ingress(group):
    return ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"][0]["IpPermissions"]


vpc = ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
browser.get("/console/groups")
browser.send("/console/groups/-/create", GroupName="<g>", Description="d", VpcId=vpc)
group = browser.path.split("?")[0].split("/")[-1]
here = f"/console/groups/{group}"
browser.send(f"{here}/authorize", How="ingress", Protocol="tcp", Ports="8000-8080", Whom="10.0.0.0/8")
assert ingress(group) == [{"IpProtocol": "tcp", "FromPort": 8000, "ToPort": 8080, "IpRanges": [{"CidrIp": "10.0.0.0/8"}]}], ingress(group)
browser.send(f"{here}/authorize", How="egress", Protocol="udp", Ports="53", Whom=group)
rules = re.findall(r'option value="((?:in|e)gress .*?)"', browser.page)
assert f"egress udp 53 {group}" in rules, rules
browser.send(f"{here}/revoke", Rule="ingress tcp 8000-8080 10.0.0.0/8")
assert not ingress(group)
csrf = re.search(r'name="csrf" value="(.*?)"', browser.page)[1]
assert browser.ask(f"{here}/authorize", {"csrf": csrf, "Ports": "<i>", "Protocol": "tcp", "Whom": "::/0"}) == 400 and "<i>" not in browser.page
browser.get(here)
browser.send(f"{here}/delete")
assert not ec2.describe_security_groups(Filters=[{"Name": "group-id", "Values": [group]}])["SecurityGroups"]

# Ports are the command line's alone, which is what the summary shows then.
subnet = ec2.describe_subnets()["Subnets"][0]["SubnetId"]
browser.get(f"/console/networks/{subnet}")
browser.get("/console/launch?catalog=mine")
fields = {"image": image, "count": "1", "name": "it's", "type": "t3.micro", "key": "none", "network": subnet, "ports": "0:22 0:80"}
page = html.unescape(browser.send("/console/launch", step="review", **fields))
assert f"spore run '{image}' -n '1' -t 't3.micro' --key 'none' --network '{vpc}' -p '0:22' -p '0:80' --tag 'Name=it'\\''s'" in page, page
browser.send("/console/launch", step="launch")
id = browser.path.split("id=")[1]
assert ec2.describe_instances(InstanceIds=[id])["Reservations"][0]["Instances"][0]["SubnetId"] == subnet

name = "w b<i>"
zone = ec2.describe_availability_zones()["AvailabilityZones"][0]["ZoneName"]
scaling.create_launch_configuration(LaunchConfigurationName="c", ImageId=image, InstanceType="t3.micro")
scaling.create_auto_scaling_group(AutoScalingGroupName=name, LaunchConfigurationName="c", MinSize=0, MaxSize=3, DesiredCapacity=0, AvailabilityZones=[zone])
here = html.unescape(re.search(r'href="(/console/scaling/[^"]+)"', browser.get("/console/scaling"))[1])


def described():
    return scaling.describe_auto_scaling_groups(AutoScalingGroupNames=[name])["AutoScalingGroups"][0]


browser.get(here)
browser.send(f"{here}/suspend", Process="Launch")
assert [one["ProcessName"] for one in described()["SuspendedProcesses"]] == ["Launch"]
browser.send(f"{here}/limits", MinSize="0", MaxSize="5")
browser.send(f"{here}/desired", DesiredCapacity="2")
assert (described()["MaxSize"], described()["DesiredCapacity"]) == (5, 2) and "<i>" not in browser.page
browser.send(f"{here}/desired", DesiredCapacity="0")
browser.send(f"{here}/resume", Process="")
assert not described()["SuspendedProcesses"]
browser.send(f"{here}/delete", ForceDelete="on")

# What is made.
browser.get("/console/networks")
browser.send("/console/networks/-/create", Name="made", CidrBlock="10.77.0.0/24")
assert "10.77.0.0/24" in browser.page, browser.page
assert {"Key": "Name", "Value": "made"} in [tag for one in ec2.describe_vpcs()["Vpcs"] if one["CidrBlock"] == "10.77.0.0/24" for tag in one["Tags"]]
csrf = re.search(r'name="csrf" value="(.*?)"', browser.page)[1]
for bad in ({"Name": "made"}, {"Name": "<i>"}, {"Name": "other", "CidrBlock": "10.77.0.0/99"}, {}):
    assert browser.ask("/console/networks/-/create", {"csrf": csrf} | bad) == 400 and "<i>" not in browser.page, bad
browser.get("/console/regions")
browser.send("/console/regions/-/create", Name="made", Location=sys.argv[2])
assert "made" in [one["RegionName"] for one in ec2.describe_regions()["Regions"]] and "made" in browser.page
for bad in ({"Name": "made", "Location": sys.argv[2]}, {"Name": "other", "Location": "relative"}, {"Name": "other", "Location": "ftp://x"}):
    assert browser.ask("/console/regions/-/create", {"csrf": csrf} | bad) == 400, bad
ec2.create_launch_template(LaunchTemplateName="made", LaunchTemplateData={"ImageId": image, "InstanceType": "t3.micro"})
template = re.search(r'<option value="(lt-\w+)">made', browser.get("/console/scaling"))[1]
browser.send("/console/scaling/-/create", AutoScalingGroupName="made", Template=template, MinSize="0", MaxSize="2", DesiredCapacity="")
made = scaling.describe_auto_scaling_groups(AutoScalingGroupNames=["made"])["AutoScalingGroups"][0]
assert (made["MaxSize"], made["DesiredCapacity"], made["LaunchTemplate"]["LaunchTemplateName"]) == (2, 0, "made"), made

# A copy to another region goes on behind its answer.
browser.get(f"/console/images/{image}")
browser.send(f"/console/images/{image}/copy", Name="elsewhere", Description="", DestinationRegion="made")
assert "done=elsewhere" in browser.path, browser.path
for _ in range(100):
    if list(pathlib.Path(sys.argv[2]).glob("images/ami-*")):
        break
    time.sleep(0.1)
else:
    raise SystemExit("the copy is not there")
ec2.terminate_instances(InstanceIds=[id])
