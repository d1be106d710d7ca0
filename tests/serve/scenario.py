"""Every action of the service's, by boto3; each answer's XML is compared with botocore's service model."""

import base64
import json
import os
import pathlib
import shutil
import tempfile
import time
import urllib.parse
import urllib.request
import xml.etree.ElementTree as ET

import boto3
import botocore.auth
import botocore.awsrequest
import botocore.exceptions
import botocore.session

from answers import compare, local

HERE = pathlib.Path(__file__).resolve().parent
ROWS = set(json.loads((HERE / "../../src/http/model/ec2.json").read_text())["actions"])
seen, wrong = set(), []


def look(operation_model, response_dict, **_):
    seen.add(operation_model.name)
    root = ET.fromstring(response_dict["body"])
    if response_dict["status_code"] < 300:
        assert root.tag.startswith("{http://ec2.amazonaws.com/doc/2016-11-15/}"), root.tag
        if operation_model.output_shape:
            compare(operation_model.output_shape, root, operation_model.name, wrong)
        else:
            assert [local(e) for e in root] == ["requestId", "return"], response_dict["body"]
    else:
        assert root.tag == "Response" and [local(e) for e in root[0][0]] == ["Code", "Message"], response_dict["body"]


session = boto3.Session()
ec2 = session.client("ec2")
ec2.meta.events.register("before-parse.ec2", look)


def refused(code, call, **parameters):
    try:
        call(**parameters)
    except botocore.exceptions.ClientError as error:
        found = error.response["Error"]["Code"]
        assert found == code, f"{found} is not {code}: {error}"
        return error
    raise SystemExit(f"{parameters} was not refused with {code}")


# Who and where.
account = session.client("sts").get_caller_identity()["Account"]
assert ec2.describe_regions()["Regions"][0]["RegionName"] == session.region_name
zone = ec2.describe_availability_zones()["AvailabilityZones"][0]["ZoneName"]
ec2.describe_account_attributes()

# Keys.
made = ec2.create_key_pair(KeyName="made", KeyType="ed25519")
assert "PRIVATE KEY" in made["KeyMaterial"]
assert "PRIVATE KEY" in ec2.create_key_pair(KeyName="default-type")["KeyMaterial"]
refused("InvalidKeyPair.Duplicate", ec2.create_key_pair, KeyName="made")
public = ec2.describe_key_pairs(KeyNames=["made"], IncludePublicKey=True)["KeyPairs"][0]["PublicKey"]
ec2.import_key_pair(KeyName="imported", PublicKeyMaterial=public.encode())
assert len(ec2.describe_key_pairs()["KeyPairs"]) >= 3
ec2.delete_key_pair(KeyName="imported")
ec2.delete_key_pair(KeyName="imported")
refused("InvalidKeyPair.NotFound", ec2.describe_key_pairs, KeyNames=["imported"])

# Networks.
vpcs = ec2.describe_vpcs()["Vpcs"]
subnets = ec2.describe_subnets()["Subnets"]
for empty in (ec2.describe_internet_gateways, ec2.describe_addresses, ec2.describe_route_tables):
    empty()
if vpcs:
    vpc = vpcs[0]["VpcId"]
    assert ec2.describe_subnets(Filters=[{"Name": "vpc-id", "Values": [vpc]}])["Subnets"]
    assert ec2.describe_vpc_attribute(VpcId=vpc, Attribute="enableDnsSupport")["EnableDnsSupport"]["Value"]
    group = ec2.create_security_group(GroupName="web", Description="web", VpcId=vpc)["GroupId"]
    rule = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
    ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[rule])
    refused("InvalidPermission.Duplicate", ec2.authorize_security_group_ingress, GroupId=group, IpPermissions=[rule])
    told = ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"][0]
    assert told["IpPermissions"][0]["FromPort"] == 22, told
    ec2.revoke_security_group_ingress(GroupId=group, IpPermissions=[rule])
    everywhere = {"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
    ec2.revoke_security_group_egress(GroupId=group, IpPermissions=[everywhere])
    ec2.authorize_security_group_egress(GroupId=group, IpPermissions=[everywhere])
    placed = {"SubnetId": subnets[0]["SubnetId"], "SecurityGroupIds": [group]}
else:
    seen |= {"DescribeVpcAttribute", "CreateSecurityGroup", "DeleteSecurityGroup"}
    seen |= {f"{verb}SecurityGroup{way}gress" for verb in ("Authorize", "Revoke") for way in ("In", "E")}
    placed = {}
refused("InvalidGroup.NotFound", ec2.describe_security_groups, GroupIds=["sg-00000000000000000"])
refused("InvalidSubnetID.NotFound", ec2.describe_subnets, SubnetIds=["subnet-00000000000000000"])

# Instances.
types = ec2.describe_instance_types(InstanceTypes=["t3.micro"])["InstanceTypes"]
assert types[0]["MemoryInfo"]["SizeInMiB"] == 1024
assert ec2.describe_instance_type_offerings()["InstanceTypeOfferings"]
refused("InvalidInstanceType", ec2.describe_instance_types, InstanceTypes=["x1.huge"])
refused("DryRunOperation", ec2.run_instances, ImageId="demo", MinCount=1, MaxCount=1, DryRun=True)
refused("InvalidAMIID.NotFound", ec2.run_instances, ImageId="ami-00000000000000000", MinCount=1, MaxCount=1)
refused("UnsupportedOperation", ec2.run_instances, ImageId="demo", MinCount=1, MaxCount=1,
        InstanceMarketOptions={"MarketType": "spot"})
tagged = [{"ResourceType": kind, "Tags": [{"Key": "Name", "Value": "web"}]} for kind in ("instance", "volume")]
volume = ec2.create_volume(AvailabilityZone=zone, Size=1, VolumeType="gp2")["VolumeId"]
ec2.get_waiter("volume_available").wait(VolumeIds=[volume])
snapshot = ec2.create_snapshot(VolumeId=volume, Description="root")["SnapshotId"]
ec2.get_waiter("snapshot_completed").wait(SnapshotIds=[snapshot])
copy = ec2.copy_snapshot(SourceSnapshotId=snapshot, SourceRegion=session.region_name)["SnapshotId"]
ec2.get_waiter("snapshot_completed").wait(SnapshotIds=[copy])
twice = {"AvailabilityZone": zone, "Size": 1, "ClientToken": "volume"}
assert len({ec2.create_volume(**twice)["VolumeId"] for _ in range(2)}) == 1
refused("IdempotentParameterMismatch", ec2.create_volume, **twice | {"Size": 2})
ec2.delete_volume(VolumeId=ec2.create_volume(**twice)["VolumeId"])
demo = ec2.describe_images(Owners=["amazon"], Filters=[{"Name": "name", "Values": ["demo"]}])["Images"][0]
web = ec2.register_image(
    Name="web", RootDeviceName="/dev/vda", KernelId=demo["KernelId"], VirtualizationType="paravirtual",
    BlockDeviceMappings=[{"DeviceName": "/dev/vda", "Ebs": {"SnapshotId": snapshot, "VolumeSize": 1}}],
)["ImageId"]
ec2.get_waiter("image_available").wait(ImageIds=[web])
launched = ec2.run_instances(
    ImageId=web, MinCount=2, MaxCount=2, InstanceType="spore.tiny", KeyName="made", UserData="#!/bin/sh\n",
    TagSpecifications=tagged, MetadataOptions={"HttpTokens": "required"}, EbsOptimized=False, Monitoring={"Enabled": False},
    BlockDeviceMappings=[{"DeviceName": "/dev/vdb", "Ebs": {"VolumeSize": 1, "DeleteOnTermination": False}}], **placed,
)
ids = [one["InstanceId"] for one in launched["Instances"]]
first = launched["Instances"][0]
assert first["KeyName"] == "made" and {"Key": "Name", "Value": "web"} in first["Tags"], first
assert len(first["NetworkInterfaces"]) == len(placed) // 2
attribute = lambda name: ec2.describe_instance_attribute(InstanceId=ids[0], Attribute=name)
assert base64.b64decode(attribute("userData")["UserData"]["Value"]) == b"#!/bin/sh\n"
for name in ("instanceType", "kernel", "ramdisk", "rootDeviceName", "blockDeviceMapping", "productCodes", "groupSet",
             "sourceDestCheck", "ebsOptimized", "disableApiTermination", "instanceInitiatedShutdownBehavior"):
    attribute(name)
state = lambda: {i["State"]["Name"] for r in ec2.describe_instances(InstanceIds=ids)["Reservations"] for i in r["Instances"]}



def settled():
    """Waits until no instance is being started: the demo guest may have powered off by then."""
    while "pending" in state():
        time.sleep(0.1)


ec2.get_waiter("instance_stopped").wait(InstanceIds=ids)  # the demo guest powers off
assert ec2.get_console_output(InstanceId=ids[0])["Output"], "the guest said nothing"
ec2.modify_instance_attribute(InstanceId=ids[0], InstanceType={"Value": "t2.nano"})
ec2.modify_instance_attribute(InstanceId=ids[0], SourceDestCheck={"Value": True})
refused("UnsupportedOperation", ec2.modify_instance_attribute, InstanceId=ids[0], DisableApiTermination={"Value": True})
ec2.modify_instance_attribute(InstanceId=ids[0], UserData={"Value": b"new"})
for name in ("kernel", "ramdisk"):
    ec2.reset_instance_attribute(InstanceId=ids[0], Attribute=name)
assert attribute("kernel")["KernelId"]["Value"] == demo["KernelId"]
assert base64.b64decode(attribute("userData")["UserData"]["Value"]) == b"new"
assert ec2.modify_instance_metadata_options(InstanceId=ids[0], HttpTokens="optional")["InstanceMetadataOptions"]["HttpTokens"] == "optional"
ec2.describe_instance_credit_specifications(InstanceIds=ids)
assert ec2.describe_instance_status(InstanceIds=ids)["InstanceStatuses"] == []
assert len(ec2.describe_instance_status(InstanceIds=ids, IncludeAllInstances=True)["InstanceStatuses"]) == 2
assert ec2.start_instances(InstanceIds=ids)["StartingInstances"][0]["PreviousState"]["Name"] == "stopped"
settled()
ec2.stop_instances(InstanceIds=ids, Force=True)
assert state() == {"stopped"}, state()
ec2.stop_instances(InstanceIds=ids)
ec2.start_instances(InstanceIds=ids[:1])
settled()
ec2.reboot_instances(InstanceIds=ids[:1])
if placed:
    assert len(ec2.describe_network_interfaces()["NetworkInterfaces"]) >= 2
else:
    ec2.describe_network_interfaces()

# Volumes.
ec2.get_waiter("instance_stopped").wait(InstanceIds=ids)
ec2.attach_volume(VolumeId=volume, InstanceId=ids[1], Device="/dev/vdc")
ec2.get_waiter("volume_in_use").wait(VolumeIds=[volume])
refused("IncorrectState", ec2.detach_volume, VolumeId=volume, Device="/dev/vdz")
ec2.detach_volume(VolumeId=volume, InstanceId=ids[1])
assert ec2.modify_volume(VolumeId=volume, Size=2)["VolumeModification"]["TargetSize"] == 2
assert ec2.describe_volumes_modifications(VolumeIds=[volume])["VolumesModifications"][0]["OriginalSize"] == 1
assert ec2.describe_volume_attribute(VolumeId=volume, Attribute="autoEnableIO")["AutoEnableIO"]["Value"]
ec2.modify_volume_attribute(VolumeId=volume, AutoEnableIO={"Value": True})
refused("UnsupportedOperation", ec2.modify_volume_attribute, VolumeId=volume, AutoEnableIO={"Value": False})
assert ec2.describe_volume_status(VolumeIds=[volume])["VolumeStatuses"][0]["VolumeStatus"]["Status"] == "ok"
pair = ec2.create_snapshots(InstanceSpecification={"InstanceId": ids[1]})["Snapshots"]
assert len(pair) == 2, pair
ec2.delete_volume(VolumeId=volume)
ec2.get_waiter("volume_deleted").wait(VolumeIds=[volume])

# Launch templates.
said = {"ImageId": web, "InstanceType": "spore.tiny", "KeyName": "made", "UserData": base64.b64encode(b"of a template").decode(),
        "InstanceInitiatedShutdownBehavior": "stop", "MetadataOptions": {"HttpTokens": "required"}, "EbsOptimized": False,
        "TagSpecifications": [{"ResourceType": kind, "Tags": [{"Key": "From", "Value": "template"}]} for kind in ("instance", "volume")]}
template = ec2.create_launch_template(LaunchTemplateName="web/1", LaunchTemplateData=said, ClientToken="once", VersionDescription="first",
                                      TagSpecifications=[{"ResourceType": "launch-template", "Tags": [{"Key": "a", "Value": "b"}]}])["LaunchTemplate"]
again = lambda name: ec2.create_launch_template(LaunchTemplateName=name, LaunchTemplateData=said, ClientToken="once", VersionDescription="first",
                                                TagSpecifications=[{"ResourceType": "launch-template", "Tags": [{"Key": "a", "Value": "b"}]}])
lt = template["LaunchTemplateId"]
assert again("web/1")["LaunchTemplate"]["LaunchTemplateId"] == lt
refused("IdempotentParameterMismatch", again, name="other")
refused("InvalidLaunchTemplateName.AlreadyExistsException", ec2.create_launch_template, LaunchTemplateName="web/1", LaunchTemplateData=said)
refused("InvalidLaunchTemplateName.MalformedException", ec2.create_launch_template, LaunchTemplateName="a b", LaunchTemplateData=said)
refused("UnsupportedOperation", ec2.create_launch_template, LaunchTemplateName="spot", LaunchTemplateData={"InstanceMarketOptions": {"MarketType": "spot"}})
second = ec2.create_launch_template_version(LaunchTemplateId=lt, SourceVersion="1", LaunchTemplateData={"InstanceType": "t2.nano"})["LaunchTemplateVersion"]
assert (second["VersionNumber"], second["LaunchTemplateData"]["ImageId"], second["DefaultVersion"]) == (2, web, False), second
versions = ec2.describe_launch_template_versions(LaunchTemplateId=lt, Versions=["$Latest", "$Default"])["LaunchTemplateVersions"]
assert [v["VersionNumber"] for v in versions] == [2, 1] and versions[1]["LaunchTemplateData"]["EbsOptimized"] is False, versions
assert ec2.describe_launch_template_versions(Versions=["$Latest"])["LaunchTemplateVersions"][0]["VersionNumber"] == 2
assert ec2.describe_launch_templates(LaunchTemplateNames=["web/1"])["LaunchTemplates"][0]["Tags"] == [{"Key": "a", "Value": "b"}]
refused("InvalidLaunchTemplateName.NotFoundException", ec2.describe_launch_templates, LaunchTemplateNames=["none"])
refused("InvalidLaunchTemplateId.NotFound", ec2.describe_launch_templates, LaunchTemplateIds=["lt-00000000000000000"])
by = lambda **of: ec2.run_instances(MinCount=1, MaxCount=1, **of)["Instances"][0]
one = by(LaunchTemplate={"LaunchTemplateName": "web/1"},
         TagSpecifications=[{"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": "one"}]}])
tags_of = lambda found: {tag["Key"]: tag["Value"] for tag in found["Tags"]}
assert tags_of(one) == {"Name": "one", "From": "template", "aws:ec2launchtemplate:id": lt, "aws:ec2launchtemplate:version": "1"}, one
assert (one["InstanceType"], one["KeyName"], one["MetadataOptions"]["HttpTokens"]) == ("spore.tiny", "made", "required"), one
root = ec2.describe_volumes(Filters=[{"Name": "attachment.instance-id", "Values": [one["InstanceId"]]}])["Volumes"][0]
assert tags_of(root) == {"From": "template"}, root
two = by(LaunchTemplate={"LaunchTemplateId": lt, "Version": "$Latest"}, InstanceType="t2.micro")
assert two["InstanceType"] == "t2.micro" and tags_of(two)["aws:ec2launchtemplate:version"] == "2", two
refused("InvalidLaunchTemplateId.VersionNotFound", ec2.run_instances, MinCount=1, MaxCount=1, LaunchTemplate={"LaunchTemplateId": lt, "Version": "3"})
refused("MissingParameter", ec2.run_instances, MinCount=1, MaxCount=1)
ec2.create_tags(Resources=[one["InstanceId"], lt], Tags=[{"Key": "New", "Value": "1"}])
refused("InvalidParameterValue", ec2.delete_tags, Resources=[one["InstanceId"]], Tags=[{"Key": "aws:ec2launchtemplate:id"}])
like = ec2.get_launch_template_data(InstanceId=one["InstanceId"])["LaunchTemplateData"]
assert base64.b64decode(like["UserData"]) == b"of a template" and like["ImageId"] == web, like
ec2.create_launch_template(LaunchTemplateName="like", LaunchTemplateData=like)
assert ec2.modify_launch_template(LaunchTemplateId=lt, DefaultVersion="2")["LaunchTemplate"]["DefaultVersionNumber"] == 2
gone = ec2.delete_launch_template_versions(LaunchTemplateId=lt, Versions=["1", "2", "7"])
assert [v["VersionNumber"] for v in gone["SuccessfullyDeletedLaunchTemplateVersions"]] == [1], gone
assert [v["ResponseError"]["Code"] for v in gone["UnsuccessfullyDeletedLaunchTemplateVersions"]] == ["unexpectedError", "launchTemplateVersionDoesNotExist"], gone
ec2.terminate_instances(InstanceIds=[one["InstanceId"], two["InstanceId"]])
ec2.delete_launch_template(LaunchTemplateName="like")
ec2.delete_launch_template(LaunchTemplateId=lt)
assert ec2.describe_launch_templates()["LaunchTemplates"] == []

# Tags.
ec2.create_tags(Resources=[ids[0], snapshot, web], Tags=[{"Key": "Env", "Value": "<test>&\"'"}, {"Key": "Empty", "Value": ""}])
found = ec2.describe_tags(Filters=[{"Name": "key", "Values": ["Env"]}])["Tags"]
assert {tag["ResourceType"] for tag in found} == {"instance", "snapshot", "image"} and found[0]["Value"] == "<test>&\"'", found
ec2.delete_tags(Resources=[ids[0]], Tags=[{"Key": "Env"}])
assert len(ec2.describe_tags(Filters=[{"Name": "key", "Values": ["Env"]}])["Tags"]) == 2
by_tag = ec2.describe_instances(Filters=[{"Name": "tag:Name", "Values": ["w?b"]}])["Reservations"]
assert sum(len(r["Instances"]) for r in by_tag) == 2

# Pages.
paged = [p for p in ec2.get_paginator("describe_instance_types").paginate(PaginationConfig={"PageSize": 5})]
assert len(paged) == 4 and sum(len(p["InstanceTypes"]) for p in paged) == 18, [len(p["InstanceTypes"]) for p in paged]
assert "NextToken" not in paged[-1]
refused("InvalidParameterValue", ec2.describe_instances, MaxResults=4)
refused("InvalidParameterCombination", ec2.describe_instances, MaxResults=5, InstanceIds=ids)
refused("InvalidNextToken", ec2.describe_instances, MaxResults=5, NextToken="bogus")

# Images.
image = ec2.create_image(InstanceId=ids[1], Name="of-an-instance", NoReboot=True,
                         TagSpecifications=[{"ResourceType": "image", "Tags": [{"Key": "a", "Value": "b"}]}])["ImageId"]
ec2.get_waiter("image_available").wait(ImageIds=[image])
refused("InvalidAMIName.Duplicate", ec2.create_image, InstanceId=ids[1], Name="of-an-instance", NoReboot=True)
twice = {"SourceImageId": image, "SourceRegion": session.region_name, "Name": "copied", "ClientToken": "copy"}
copied = ec2.copy_image(**twice)["ImageId"]
ec2.get_waiter("image_available").wait(ImageIds=[copied])
assert ec2.copy_image(**twice)["ImageId"] == copied
refused("IdempotentParameterMismatch", ec2.copy_image, **twice | {"Description": "other"})
refused("InvalidAMIName.Duplicate", ec2.copy_image, **twice | {"ClientToken": "other"})
refused("InvalidAMIID.NotFound", ec2.copy_image, **twice | {"ClientToken": "none", "SourceImageId": "ami-00000000000000000", "Name": "none"})
ec2.modify_image_attribute(ImageId=copied, Description={"Value": "a copy"})
ec2.modify_image_attribute(ImageId=copied, LaunchPermission={"Add": [{"Group": "all"}]})
assert ec2.describe_images(ImageIds=[copied])["Images"][0]["Public"]
ec2.modify_image_attribute(ImageId=copied, Attribute="launchPermission", OperationType="remove", UserGroups=["all"])
assert ec2.describe_image_attribute(ImageId=copied, Attribute="launchPermission")["LaunchPermissions"] == []
for name in ("description", "kernel", "ramdisk", "productCodes", "blockDeviceMapping", "bootMode"):
    ec2.describe_image_attribute(ImageId=copied, Attribute=name)
ec2.reset_image_attribute(ImageId=copied, Attribute="launchPermission")
soon = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 86400))
ec2.enable_image_deprecation(ImageId=copied, DeprecateAt=soon)
assert ec2.describe_images(ImageIds=[copied])["Images"][0]["DeprecationTime"]
ec2.disable_image_deprecation(ImageId=copied)
ec2.modify_image_attribute(ImageId=copied, LaunchPermission={"Add": [{"Group": "all"}]})
of_it = ec2.describe_images(ImageIds=[copied])["Images"][0]["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"]
shared = lambda: ec2.describe_snapshot_attribute(SnapshotId=of_it, Attribute="createVolumePermission")["CreateVolumePermissions"]
assert shared() == [{"Group": "all"}], shared()
refused("UnsupportedOperation", ec2.reset_snapshot_attribute, SnapshotId=of_it, Attribute="createVolumePermission")
refused("UnsupportedOperation", ec2.modify_snapshot_attribute, SnapshotId=of_it, Attribute="createVolumePermission",
        OperationType="add", GroupNames=["all"])
assert ec2.disable_image(ImageId=copied)["Return"] and ec2.disable_image(ImageId=copied)["Return"]
assert shared() == []
ec2.reset_snapshot_attribute(SnapshotId=of_it, Attribute="createVolumePermission")
mine = lambda **more: {i["ImageId"]: i for i in ec2.describe_images(Owners=["self"], **more)["Images"]}
assert copied not in mine() and mine(IncludeDisabled=True)[copied]["State"] == "disabled"
refused("InvalidAMIID.Unavailable", ec2.run_instances, ImageId=copied, MinCount=1, MaxCount=1)
refused("InvalidAMIID.Unavailable", ec2.modify_image_attribute, ImageId=copied, LaunchPermission={"Add": [{"Group": "all"}]})
assert ec2.enable_image(ImageId=copied)["Return"]
assert not mine()[copied]["Public"]
assert ec2.enable_image_deregistration_protection(ImageId=copied, WithCooldown=True)["Return"] == "enabled-with-cooldown"
refused("OperationNotPermitted", ec2.deregister_image, ImageId=copied)
assert "cooldown until" in ec2.disable_image_deregistration_protection(ImageId=copied)["Return"]
refused("OperationNotPermitted", ec2.deregister_image, ImageId=copied)
ec2.enable_image_deregistration_protection(ImageId=copied)
protected = ec2.describe_image_attribute(ImageId=copied, Attribute="deregistrationProtection")["DeregistrationProtection"]["Value"]
assert protected == "enabled-without-cooldown", protected
assert ec2.disable_image_deregistration_protection(ImageId=copied)["Return"] == "disabled"
# What goes on behind its answer.
here = pathlib.Path(tempfile.mkdtemp())
(here / "a disk.raw").write_bytes(os.urandom(1 << 20) + bytes(1 << 20))
url = "file://" + urllib.parse.quote(str(here / "a disk.raw"))


def ended(describe, members, key, task):
    """A task once it goes on no longer."""
    for _ in range(600):
        found = describe(**{key: [task]})[members][0]
        if found.get("Status", found.get("SnapshotTaskDetail", {}).get("Status")) not in ("active", "deleting"):
            return found
        time.sleep(0.1)
    raise SystemExit(f"{task} does not end: {found}")


asked = {"DiskContainers": [{"Format": "RAW", "Url": url, "Description": "root"}], "Description": "from a file", "ClientToken": "import",
         "TagSpecifications": [{"ResourceType": "import-image-task", "Tags": [{"Key": "a", "Value": "b"}]}]}
task = ec2.import_image(**asked)
assert task["Status"] == "active" and task["Tags"] == [{"Key": "a", "Value": "b"}], task
assert ec2.import_image(**asked)["ImportTaskId"] == task["ImportTaskId"]
refused("IdempotentParameterMismatch", ec2.import_image, **asked | {"Description": "other"})
done = ended(ec2.describe_import_image_tasks, "ImportImageTasks", "ImportTaskIds", task["ImportTaskId"])
assert done["Status"] == "completed" and done["SnapshotDetails"][0]["Url"] == url, done
imported = ec2.describe_images(ImageIds=[done["ImageId"]])["Images"][0]
assert (imported["Name"], imported["Description"]) == (task["ImportTaskId"], "from a file"), imported
assert imported["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"] == done["SnapshotDetails"][0]["SnapshotId"]
refused("IncorrectState", ec2.cancel_import_task, ImportTaskId=task["ImportTaskId"])
bucket = {"S3Bucket": "file://" + str(here), "S3Key": "a%20disk.raw"}
task = ec2.import_snapshot(DiskContainer={"Format": "raw", "UserBucket": bucket}, Description="data")["ImportTaskId"]
ec2.get_waiter("snapshot_imported").wait(ImportTaskIds=[task], WaiterConfig={"Delay": 1})
found = ec2.describe_import_snapshot_tasks(Filters=[{"Name": "task-state", "Values": ["completed"]}])["ImportSnapshotTasks"]
assert [one["ImportTaskId"] for one in found] == [task], found
of_data = ec2.describe_snapshots(SnapshotIds=[found[0]["SnapshotTaskDetail"]["SnapshotId"]])["Snapshots"][0]
assert (of_data["Description"], of_data["State"]) == ("data", "completed"), of_data
task = ec2.import_image(DiskContainers=[{"SnapshotId": of_data["SnapshotId"]}])["ImportTaskId"]
second = ended(ec2.describe_import_image_tasks, "ImportImageTasks", "ImportTaskIds", task)["ImageId"]
(here / "none").write_bytes(b"")
task = ec2.import_snapshot(DiskContainer={"Url": str(here / "none")})["ImportTaskId"]
failed = ended(ec2.describe_import_snapshot_tasks, "ImportSnapshotTasks", "ImportTaskIds", task)["SnapshotTaskDetail"]
assert failed["Status"] == "error" and failed["StatusMessage"].startswith("ClientError: "), failed
for code, containers in (("UnsupportedOperation", [{"Url": "https://example.com/x"}]), ("InvalidParameterValue", [{"Url": url + "x"}]),
                         ("InvalidParameterCombination", [{"Format": "raw"}]), ("UnsupportedOperation", [{"Url": url}, {"Url": url}]),
                         ("InvalidParameterValue", [{"Url": "file:///"}]), ("MissingParameter", [])):
    refused(code, ec2.import_image, DiskContainers=containers)
refused("UnsupportedOperation", ec2.import_image, DiskContainers=[{"Url": url}], Platform="Windows")
refused("InvalidConversionTaskId", ec2.cancel_import_task, ImportTaskId="import-ami-00000000000000000")
refused("InvalidConversionTaskId.Malformed", ec2.describe_import_image_tasks, ImportTaskIds=["../x"])
place = {"S3Bucket": "file://" + str(here), "S3Prefix": "web-"}
task = ec2.export_image(ImageId=done["ImageId"], DiskImageFormat="RAW", S3ExportLocation=place)
assert task["DiskImageFormat"] == "RAW" and task["S3ExportLocation"] == place, task
task = task["ExportImageTaskId"]
assert ended(ec2.describe_export_image_tasks, "ExportImageTasks", "ExportImageTaskIds", task)["Status"] == "completed"
assert (here / f"web-{task}.raw").read_bytes() == (here / "a disk.raw").read_bytes()
refused("UnsupportedOperation", ec2.export_image, ImageId=done["ImageId"], DiskImageFormat="VHD", S3ExportLocation=place)
for bad in (place | {"S3Prefix": "../x"}, place | {"S3Bucket": "file:///none"}):
    refused("InvalidParameterValue", ec2.export_image, ImageId=done["ImageId"], DiskImageFormat="RAW", S3ExportLocation=bad)
shutil.rmtree(here)

for one in (copied, image, web, done["ImageId"], second):
    ec2.deregister_image(ImageId=one)
refused("InvalidAMIID.NotFound", ec2.describe_images, ImageIds=["ami-00000000000000000"])
ec2.terminate_instances(InstanceIds=ids)
ec2.get_waiter("instance_terminated").wait(InstanceIds=ids)
ec2.delete_snapshot(SnapshotId=copy)
if vpcs:
    ec2.delete_security_group(GroupId=group)

# What is no request of this service.
refused("InvalidAction", ec2.describe_hosts)
for bad in ({"aws_access_key_id": "AKIAAAAAAAAAAAAAAAAA", "aws_secret_access_key": "x"},):
    refused("AuthFailure", session.client("ec2", **bad).describe_regions)
refused("SignatureDoesNotMatch", session.client("ec2", aws_secret_access_key="x" * 40,
        aws_access_key_id=session.get_credentials().access_key).describe_regions)

# A request that is signed in its query.
request = botocore.awsrequest.AWSRequest("GET", ec2.meta.endpoint_url + "/", params={"Action": "DescribeRegions", "Version": "2016-11-15"})
botocore.auth.SigV4QueryAuth(session.get_credentials(), "ec2", session.region_name, expires=60).add_auth(request)
assert b"regionInfo" in urllib.request.urlopen(request.url).read()

untried = ROWS - seen
assert not untried, f"no answer was seen of {sorted(untried)}"
assert not wrong, "\n".join(sorted(set(wrong)))
