"""Auto Scaling by boto3: groups of the demo image; each answer's XML is compared with botocore's service model.

scaling.py STEADY PLAIN BUSY: images whose guests wait, power off at once, and spin. With a group's name after them: what
is looked at after the service was killed.
"""

import datetime
import json
import os
import pathlib
import signal
import sys
import time
import xml.etree.ElementTree as ET

import boto3
import botocore.exceptions

from answers import compare, local

HERE = pathlib.Path(__file__).resolve().parent
ROWS = set(json.loads((HERE / "../../src/http/model/autoscaling.json").read_text())["actions"])
seen, wrong = set(), []
STEADY, PLAIN, BUSY = sys.argv[1:4]
NAMESPACE = "{http://autoscaling.amazonaws.com/doc/2011-01-01/}"


def look(operation_model, response_dict, **_):
    seen.add(operation_model.name)
    root = ET.fromstring(response_dict["body"])
    if response_dict["status_code"] < 300:
        assert root.tag == f"{NAMESPACE}{operation_model.name}Response", root.tag
        if operation_model.output_shape:
            compare(operation_model.output_shape, root[0], operation_model.name, wrong)
        assert local(root[-1]) == "ResponseMetadata", root[-1].tag
    else:
        assert root.tag == "ErrorResponse" and [local(e) for e in root[0]] == ["Type", "Code", "Message"], root.tag


session = boto3.Session()
ec2, asg = session.client("ec2"), session.client("autoscaling")
asg.meta.events.register("before-parse.autoscaling", look)


def refused(code, call, **parameters):
    try:
        call(**parameters)
    except botocore.exceptions.ClientError as error:
        assert error.response["Error"]["Code"] == code, error
    else:
        raise SystemExit(f"{call.__name__} was not refused by {code}")


def until(what, true, seconds=40):
    """Waits until something is true."""
    end = time.monotonic() + seconds
    while not (value := true()):
        if time.monotonic() > end:
            activities = asg.describe_scaling_activities()["Activities"]
            raise SystemExit(f"it did not come to this: {what}: {activities[:6]}")
        time.sleep(0.1)
    return value


def group(name="web"):
    return asg.describe_auto_scaling_groups(AutoScalingGroupNames=[name])["AutoScalingGroups"][0]


def serving(name="web"):
    """The ids of what is in service, if nothing comes or goes."""
    instances = group(name)["Instances"]
    if any((i["LifecycleState"], i["HealthStatus"]) != ("InService", "Healthy") for i in instances):
        return None
    return {i["InstanceId"] for i in instances}


def settled(count, name="web"):
    return until(f"{count} in service", lambda: (ids := serving(name)) is not None and len(ids) == count and (ids or {0}))


def running():
    filters = [{"Name": "instance-state-name", "Values": ["running", "pending"]}, {"Name": "tag:aws:autoscaling:groupName", "Values": ["*"]}]
    pages = ec2.get_paginator("describe_instances").paginate(Filters=filters)
    return {i["InstanceId"] for page in pages for r in page["Reservations"] for i in r["Instances"]}


def kill(ids):
    for one in ids:
        pid = (pathlib.Path(os.environ["SPORE_HOME"]) / "instances" / one / "record.json").read_text()
        os.kill(json.loads(pid)["Instance"]["Spore"]["Pid"], signal.SIGKILL)


def lost_nothing():
    """What runs is what the group has: none was launched twice, none forgotten."""
    until("nothing beside the group", lambda: (ids := serving()) is not None and ids == running())


if len(sys.argv) > 4:
    # The service was killed while the group went from 2 to 4, and one of its instances with it.
    settled(4)
    lost_nothing()
    asg.delete_auto_scaling_group(AutoScalingGroupName="web", ForceDelete=True)
    until("it is gone", lambda: not asg.describe_auto_scaling_groups()["AutoScalingGroups"])
    assert not running()
    raise SystemExit(0)

# Launch configurations.
configure = lambda name, image: asg.create_launch_configuration(
    LaunchConfigurationName=name, ImageId=image, InstanceType="spore.tiny", UserData="#!/bin/sh\n",
    InstanceMonitoring={"Enabled": False}, MetadataOptions={"HttpTokens": "required"},
)
configure("steady", STEADY)
configure("steady-2", STEADY)
configure("plain", PLAIN)
configure("busy", BUSY)
try:
    configure("steady", STEADY)
    raise SystemExit("a name was given twice")
except asg.exceptions.AlreadyExistsFault:
    pass
refused("InvalidAMIID.NotFound", asg.create_launch_configuration, LaunchConfigurationName="x", ImageId="ami-00000000000000000")
refused("ValidationError", asg.create_launch_configuration, LaunchConfigurationName="a:b", ImageId=STEADY)
page = asg.describe_launch_configurations(MaxRecords=3)
assert len(page["LaunchConfigurations"]) == 3
rest = asg.describe_launch_configurations(MaxRecords=3, NextToken=page["NextToken"])
assert len(rest["LaunchConfigurations"]) == 1 and "NextToken" not in rest
refused("InvalidNextToken", asg.describe_launch_configurations, NextToken="bm8")

# A group goes 1, 5, 2.
make = lambda name, **more: asg.create_auto_scaling_group(**({
    "AutoScalingGroupName": name, "LaunchConfigurationName": "steady", "MinSize": 1, "MaxSize": 6,
    "AvailabilityZones": [ec2.describe_availability_zones()["AvailabilityZones"][0]["ZoneName"]],
} | more))
make("web", Tags=[{"Key": "Name", "Value": "web", "PropagateAtLaunch": True}, {"Key": "own", "Value": "1", "PropagateAtLaunch": False}])
first = settled(1)
refused("AlreadyExists", make, name="web")
for bad in ({"MinSize": 3, "MaxSize": 2}, {"DesiredCapacity": 9}, {"MaxSize": 100000}, {"LaunchConfigurationName": "none"},
            {"TerminationPolicies": ["Nobody"]}, {"AvailabilityZones": ["moon-1a"]}):
    refused("ValidationError", make, name="bad", **bad)
refused("UnsupportedOperation", make, name="bad", HealthCheckType="ELB")
asg.set_desired_capacity(AutoScalingGroupName="web", DesiredCapacity=5, HonorCooldown=True)
five = settled(5)
assert first < five
lost_nothing()
tags = ec2.describe_instances(InstanceIds=list(first))["Reservations"][0]["Instances"][0]["Tags"]
assert {t["Key"] for t in tags} == {"Name", "aws:autoscaling:groupName"}, tags
refused("ValidationError", asg.set_desired_capacity, AutoScalingGroupName="web", DesiredCapacity=7)
refused("ResourceInUse", asg.delete_auto_scaling_group, AutoScalingGroupName="web")
refused("ResourceInUse", asg.delete_launch_configuration, LaunchConfigurationName="steady")

# What is killed is replaced.
dead = sorted(five)[:2]
kill(dead)
until("two others", lambda: (ids := serving()) and len(ids) == 5 and not ids & set(dead))
lost_nothing()
keep = sorted(serving())[0]
asg.set_instance_protection(AutoScalingGroupName="web", InstanceIds=[keep], ProtectedFromScaleIn=True)
asg.update_auto_scaling_group(AutoScalingGroupName="web", DesiredCapacity=2, TerminationPolicies=["OldestInstance"])
assert keep in settled(2)
lost_nothing()
activities = asg.describe_scaling_activities(AutoScalingGroupName="web")["Activities"]
assert {a["StatusCode"] for a in activities} == {"Successful"}, activities

# Instances.
other = next(iter(serving() - {keep}))
asg.set_instance_health(InstanceId=other, HealthStatus="Unhealthy", ShouldRespectGracePeriod=False)
until("another", lambda: (ids := serving()) and len(ids) == 2 and other not in ids)
other = next(iter(serving() - {keep}))
asg.enter_standby(AutoScalingGroupName="web", InstanceIds=[other], ShouldDecrementDesiredCapacity=True)
assert asg.describe_auto_scaling_instances(InstanceIds=[other])["AutoScalingInstances"][0]["LifecycleState"] == "Standby"
refused("ValidationError", asg.enter_standby, AutoScalingGroupName="web", InstanceIds=[other], ShouldDecrementDesiredCapacity=False)
asg.exit_standby(AutoScalingGroupName="web", InstanceIds=[other])
assert settled(2) == {keep, other}
asg.detach_instances(AutoScalingGroupName="web", InstanceIds=[other], ShouldDecrementDesiredCapacity=True)
assert other not in running() and settled(1) == {keep}
asg.attach_instances(AutoScalingGroupName="web", InstanceIds=[other])
refused("ValidationError", asg.attach_instances, AutoScalingGroupName="web", InstanceIds=[other])
assert settled(2) == {keep, other} == running()
gone = asg.terminate_instance_in_auto_scaling_group(InstanceId=other, ShouldDecrementDesiredCapacity=False)["Activity"]
assert other in gone["Description"]
until("another", lambda: (ids := serving()) and len(ids) == 2 and other not in ids)
for bad in ("i-00000000000000000", "../../x", "x" * 5000):
    try:
        asg.terminate_instance_in_auto_scaling_group(InstanceId=bad, ShouldDecrementDesiredCapacity=False)
        raise SystemExit(f"{bad} was terminated")
    except botocore.exceptions.ClientError as error:
        assert error.response["Error"]["Code"] == "ValidationError", error
    except botocore.exceptions.ParamValidationError:
        pass

# Processes, tags, words.
asg.suspend_processes(AutoScalingGroupName="web", ScalingProcesses=["Launch"])
asg.set_desired_capacity(AutoScalingGroupName="web", DesiredCapacity=3)
time.sleep(1)
assert len(serving()) == 2 and group()["SuspendedProcesses"][0]["ProcessName"] == "Launch"
asg.resume_processes(AutoScalingGroupName="web")
settled(3)
refused("ValidationError", asg.suspend_processes, AutoScalingGroupName="web", ScalingProcesses=["Sleep"])
tag = {"ResourceId": "web", "ResourceType": "auto-scaling-group", "Key": "env", "Value": "<&>", "PropagateAtLaunch": False}
asg.create_or_update_tags(Tags=[tag])
assert tag in asg.describe_tags(Filters=[{"Name": "key", "Values": ["env"]}])["Tags"]
assert len(asg.describe_auto_scaling_groups(Filters=[{"Name": "tag:env", "Values": ["<&>"]}])["AutoScalingGroups"]) == 1
asg.delete_tags(Tags=[tag])
refused("ValidationError", asg.create_or_update_tags, Tags=[tag | {"Key": "aws:x"}])
assert asg.describe_account_limits()["NumberOfAutoScalingGroups"] == 1
assert "OldestInstance" in asg.describe_termination_policy_types()["TerminationPolicyTypes"]
assert len(asg.describe_adjustment_types()["AdjustmentTypes"]) == 3
assert {"ProcessName": "Launch"} in asg.describe_scaling_process_types()["Processes"]

# A refresh, and one to an image whose guests end at once.
refresh = lambda **preferences: asg.start_instance_refresh(AutoScalingGroupName="web", Preferences=preferences)["InstanceRefreshId"]
status = lambda: asg.describe_instance_refreshes(AutoScalingGroupName="web")["InstanceRefreshes"][0]
before = serving()
asg.update_auto_scaling_group(AutoScalingGroupName="web", LaunchConfigurationName="steady-2")
refresh(MinHealthyPercentage=50)
refused("InstanceRefreshInProgress", asg.start_instance_refresh, AutoScalingGroupName="web")
until("a refresh", lambda: status()["Status"] == "Successful")
assert not settled(3) & before
assert {i["LaunchConfigurationName"] for i in group()["Instances"]} == {"steady-2"}
asg.update_auto_scaling_group(AutoScalingGroupName="web", LaunchConfigurationName="plain")
refresh(MinHealthyPercentage=50, AutoRollback=True)
until("a rollback", lambda: status()["Status"] == "RollbackSuccessful")
settled(3)
assert group()["LaunchConfigurationName"] == "steady-2", group()
assert {i["LaunchConfigurationName"] for i in group()["Instances"]} == {"steady-2"}
refresh(MinHealthyPercentage=100, InstanceWarmup=600)
asg.cancel_instance_refresh(AutoScalingGroupName="web")
refused("ActiveInstanceRefreshNotFound", asg.rollback_instance_refresh, AutoScalingGroupName="web")
settled(3)
lost_nothing()

# Policies and scheduled actions.
policy = lambda name, **more: asg.put_scaling_policy(AutoScalingGroupName="web", PolicyName=name, **more)["PolicyARN"]
simple = policy("simple", AdjustmentType="ChangeInCapacity", ScalingAdjustment=-1, Cooldown=60)
policy("step", PolicyType="StepScaling", AdjustmentType="PercentChangeInCapacity", MinAdjustmentMagnitude=2,
       StepAdjustments=[{"MetricIntervalLowerBound": 0.0, "ScalingAdjustment": 10}])
refused("ValidationError", asg.put_scaling_policy, AutoScalingGroupName="web", PolicyName="x", AdjustmentType="ExactCapacity")
refused("UnsupportedOperation", asg.put_scaling_policy, AutoScalingGroupName="web", PolicyName="x", PolicyType="PredictiveScaling")
refused("ValidationError", asg.execute_policy, AutoScalingGroupName="web", PolicyName="step")
asg.execute_policy(PolicyName=simple)
assert group()["DesiredCapacity"] == 2
refused("ScalingActivityInProgress", asg.execute_policy, AutoScalingGroupName="web", PolicyName="simple", HonorCooldown=True)
refused("ScalingActivityInProgress", asg.set_desired_capacity, AutoScalingGroupName="web", DesiredCapacity=1, HonorCooldown=True)
asg.execute_policy(AutoScalingGroupName="web", PolicyName="step", MetricValue=80, BreachThreshold=50)
assert group()["DesiredCapacity"] == 4
assert [p["PolicyType"] for p in asg.describe_policies(AutoScalingGroupName="web")["ScalingPolicies"]] == ["SimpleScaling", "StepScaling"]
asg.delete_policy(AutoScalingGroupName="web", PolicyName="simple")
refused("ValidationError", asg.delete_policy, AutoScalingGroupName="web", PolicyName="simple")
schedule = lambda name, **more: asg.put_scheduled_update_group_action(AutoScalingGroupName="web", ScheduledActionName=name, **more)
schedule("nightly", Recurrence="0 3 * * *", MinSize=1)
schedule("soon", StartTime=datetime.datetime.fromtimestamp(int(time.time()) + 2.25, datetime.timezone.utc), DesiredCapacity=3)
for bad in ({"Recurrence": "0 0 31 2 *", "MinSize": 1}, {"StartTime": 1, "MinSize": 1}, {"Recurrence": "* * * * *"}):
    refused("ValidationError", asg.put_scheduled_update_group_action, AutoScalingGroupName="web", ScheduledActionName="bad", **bad)
until("its time", lambda: group()["DesiredCapacity"] == 3)
left = asg.describe_scheduled_actions(AutoScalingGroupName="web")["ScheduledUpdateGroupActions"]
assert [a["ScheduledActionName"] for a in left] == ["nightly"], left
asg.delete_scheduled_action(AutoScalingGroupName="web", ScheduledActionName="nightly")
settled(3)

# Guests that spin are joined by others, which don't last.
make("busy", LaunchConfigurationName="busy", MaxSize=2)
asg.put_scaling_policy(
    AutoScalingGroupName="busy", PolicyName="cpu", PolicyType="TargetTrackingScaling", EstimatedInstanceWarmup=0,
    TargetTrackingConfiguration={"PredefinedMetricSpecification": {"PredefinedMetricType": "ASGAverageCPUUtilization"}, "TargetValue": 2.0},
)
settled(2, "busy")
asg.delete_auto_scaling_group(AutoScalingGroupName="busy", ForceDelete=True)
until("it is gone", lambda: not asg.describe_auto_scaling_groups(AutoScalingGroupNames=["busy"])["AutoScalingGroups"])
asg.delete_launch_configuration(LaunchConfigurationName="busy")

# A launch template says what is launched, in the version that it has then.
said = {"ImageId": STEADY, "InstanceType": "spore.tiny",
        "TagSpecifications": [{"ResourceType": "instance", "Tags": [{"Key": "From", "Value": "template"}]}]}
lt = ec2.create_launch_template(LaunchTemplateName="fleet", LaunchTemplateData=said)["LaunchTemplate"]["LaunchTemplateId"]
by = lambda name, **more: asg.create_auto_scaling_group(AutoScalingGroupName=name, MinSize=1, MaxSize=3, **more)
for bad in ({"LaunchTemplateName": "none"}, {"LaunchTemplateId": lt, "Version": "9"}, {"LaunchTemplateId": lt, "LaunchTemplateName": "fleet"}):
    refused("ValidationError", by, name="bad", LaunchTemplate=bad)
latest = {"LaunchTemplateId": lt, "LaunchTemplateName": "fleet", "Version": "$Latest"}
refused("ValidationError", by, name="bad", LaunchTemplate={"LaunchTemplateId": lt}, LaunchConfigurationName="steady")
refused("UnsupportedOperation", by, name="bad", MixedInstancesPolicy={"LaunchTemplate": {"LaunchTemplateSpecification": {"LaunchTemplateId": lt}}})
refused("UnsupportedOperation", by, name="bad", LaunchTemplate={"LaunchTemplateId": lt}, TargetGroupARNs=["arn:aws:x"])
by("fleet", LaunchTemplate={"LaunchTemplateName": "fleet", "Version": "$Latest"})
old = settled(1, "fleet")
assert group("fleet")["LaunchTemplate"] == latest, group("fleet")
assert group("fleet")["Instances"][0]["LaunchTemplate"] == latest | {"Version": "1"}, group("fleet")
tags = ec2.describe_instances(InstanceIds=list(old))["Reservations"][0]["Instances"][0]["Tags"]
assert {t["Key"] for t in tags} == {"From", "aws:autoscaling:groupName", "aws:ec2launchtemplate:id", "aws:ec2launchtemplate:version"}, tags
ec2.create_launch_template_version(LaunchTemplateId=lt, SourceVersion="1", LaunchTemplateData={"InstanceType": "t2.nano"})
fleet = lambda: asg.describe_instance_refreshes(AutoScalingGroupName="fleet")["InstanceRefreshes"][0]
kept = None
for _ in range(2):
    asg.start_instance_refresh(AutoScalingGroupName="fleet", DesiredConfiguration={"LaunchTemplate": {"LaunchTemplateId": lt, "Version": "$Latest"}},
                               Preferences={"MinHealthyPercentage": 0, "SkipMatching": True})
    until("a refresh of the fleet", lambda: fleet()["Status"] == "Successful")
    assert fleet()["DesiredConfiguration"]["LaunchTemplate"] == latest, fleet()
    settled(1, "fleet")
    found = group("fleet")["Instances"][0]
    assert found["LaunchTemplate"]["Version"] == "2" and found["InstanceType"] == "t2.nano", found
    # What has that version already stays.
    assert found["InstanceId"] not in old and kept in (None, found["InstanceId"]), (kept, found)
    kept = found["InstanceId"]
assert asg.describe_auto_scaling_instances(InstanceIds=[kept])["AutoScalingInstances"][0]["LaunchTemplate"]["Version"] == "2"
asg.update_auto_scaling_group(AutoScalingGroupName="fleet", LaunchTemplate={"LaunchTemplateId": lt, "Version": "1"})
assert group("fleet")["LaunchTemplate"]["Version"] == "1"
asg.delete_auto_scaling_group(AutoScalingGroupName="fleet", ForceDelete=True)
until("it is gone", lambda: not asg.describe_auto_scaling_groups(AutoScalingGroupNames=["fleet"])["AutoScalingGroups"])
ec2.delete_launch_template(LaunchTemplateId=lt)

untried = ROWS - seen
assert not untried, f"no answer was seen of {sorted(untried)}"
assert not wrong, "\n".join(sorted(set(wrong)))
asg.set_desired_capacity(AutoScalingGroupName="web", DesiredCapacity=2)
settled(2)
