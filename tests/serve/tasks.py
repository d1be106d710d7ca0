"""Begins imports and prints their ids; the service is killed then. With the ids: what has become of them."""

import gzip
import os
import pathlib
import sys
import tempfile
import time

import boto3

ec2 = boto3.client("ec2")


def found(task):
    if task.startswith("import-ami-"):
        return ec2.describe_import_image_tasks(ImportTaskIds=[task])["ImportImageTasks"][0]
    return ec2.describe_import_snapshot_tasks(ImportTaskIds=[task])["ImportSnapshotTasks"][0]["SnapshotTaskDetail"]


def until(task, status):
    for _ in range(600):
        if (one := found(task))["Status"] == status:
            return one
        assert one["Status"] in ("active", "deleting"), one
        time.sleep(0.1)
    raise SystemExit(f"{task} does not become {status}: {one}")


if len(sys.argv) == 1:
    here = pathlib.Path(tempfile.mkdtemp())
    (here / "disk").write_bytes(os.urandom(48 << 20))
    # Longer than anybody waits.
    (here / "long.gz").write_bytes(gzip.compress(bytes(64 << 20), 9) * 512)
    tasks = [
        ec2.import_image(DiskContainers=[{"Format": "RAW", "Url": f"file://{here}/disk"}])["ImportTaskId"],
        ec2.import_snapshot(DiskContainer={"Format": "RAW", "Url": f"file://{here}/disk"})["ImportTaskId"],
        ec2.import_image(DiskContainers=[{"Url": f"file://{here}/long.gz"}])["ImportTaskId"],
    ]
    print(*tasks, here)
    raise SystemExit(0)

def imported():
    """The names of the images that there are of tasks."""
    return [one["Name"] for one in ec2.describe_images(Filters=[{"Name": "name", "Values": ["import-*"]}])["Images"]]


image, snapshot, long, here = sys.argv[1:]
made = until(image, "completed")
assert imported() == [image], imported()
taken = until(snapshot, "completed")["SnapshotId"]
snapshots = {one["SnapshotId"] for one in ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"]}
for one in ec2.describe_images(Filters=[{"Name": "name", "Values": ["demo"]}])["Images"]:
    snapshots -= {mapping["Ebs"]["SnapshotId"] for mapping in one["BlockDeviceMappings"]}
assert snapshots == {taken, made["SnapshotDetails"][0]["SnapshotId"]}, snapshots
assert found(long)["Status"] == "active"
cancelled = ec2.cancel_import_task(ImportTaskId=long)
assert (cancelled["PreviousState"], cancelled["State"]) == ("active", "deleting"), cancelled
assert until(long, "deleted")["StatusMessage"] == "cancelled by its user"
assert imported() == [image], imported()
for file in pathlib.Path(here).iterdir():
    file.unlink()
pathlib.Path(here).rmdir()
