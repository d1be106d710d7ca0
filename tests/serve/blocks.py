"""The EBS direct APIs, by boto3: a snapshot written and read block by block.

With the id of a snapshot as its argument it completes that one, whose blocks another service took.
"""

import base64
import concurrent.futures
import hashlib
import os
import sys

import boto3
import botocore.config
import botocore.exceptions

BLOCK = 524288
session = boto3.Session()
ebs = session.client("ebs", config=botocore.config.Config(max_pool_connections=60))
ec2 = session.client("ec2")


def refused(kind, call, **parameters):
    try:
        call(**parameters)
    except botocore.exceptions.ClientError as error:
        found = error.response["Error"]["Code"]
        assert found == kind, f"{found} is not {kind}: {error}"
        return error.response
    raise SystemExit(f"{parameters} was not refused with {kind}")


def digest(data):
    return hashlib.sha256(data)


def put(snapshot, index, data, **other):
    checksum = base64.b64encode(digest(data).digest()).decode()
    given = dict(SnapshotId=snapshot, BlockIndex=index, BlockData=data, DataLength=len(data), Checksum=checksum,
                 ChecksumAlgorithm="SHA256")
    return ebs.put_snapshot_block(**given | other)


def write(blocks, **start):
    begun = ebs.start_snapshot(VolumeSize=1, **start)
    assert begun["BlockSize"] == BLOCK and begun["Status"] == "pending", begun
    with concurrent.futures.ThreadPoolExecutor(64) as pool:
        done = [pool.submit(put, begun["SnapshotId"], index, data) for index, data in blocks.items()]
        for one in done:
            assert one.result()["ChecksumAlgorithm"] == "SHA256"
    return begun["SnapshotId"]


def complete(snapshot, blocks):
    whole = hashlib.sha256(b"".join(digest(blocks[index]).digest() for index in sorted(blocks))).digest()
    done = ebs.complete_snapshot(SnapshotId=snapshot, ChangedBlocksCount=len(blocks), ChecksumAlgorithm="SHA256",
                                 ChecksumAggregationMethod="LINEAR", Checksum=base64.b64encode(whole).decode())
    assert done["Status"] in ("pending", "completed"), done
    ec2.get_waiter("snapshot_completed").wait(SnapshotIds=[snapshot], WaiterConfig={"Delay": 1})


def read(snapshot):
    found = {}
    for page in pages(ebs.list_snapshot_blocks, SnapshotId=snapshot):
        assert page["BlockSize"] == BLOCK and page["VolumeSize"] == 1, page
        for block in page["Blocks"]:
            got = ebs.get_snapshot_block(SnapshotId=snapshot, BlockIndex=block["BlockIndex"], BlockToken=block["BlockToken"])
            data = got["BlockData"].read()
            assert len(data) == got["DataLength"] and base64.b64decode(got["Checksum"]) == digest(data).digest()
            found[block["BlockIndex"]] = data
    return found


def pages(call, **asked):
    token = {}
    while True:
        page = call(MaxResults=100, **asked, **token)
        yield page
        if "NextToken" not in page:
            return
        token = {"NextToken": page["NextToken"]}


blocks = {index: bytes([index % 251 + 1]) * BLOCK for index in (*range(3, 123), 2047)}
if sys.argv[1:]:
    complete(sys.argv[1], blocks)
    assert read(sys.argv[1]) == blocks
    sys.exit()

# Written by many at once, and read back.
first = write(blocks, Description="first", Tags=[{"Key": "Name", "Value": "first"}])
assert ec2.describe_snapshots(SnapshotIds=[first])["Snapshots"][0]["State"] == "pending"
refused("ValidationException", ebs.list_snapshot_blocks, SnapshotId=first)
refused("ValidationException", ebs.complete_snapshot, SnapshotId=first, ChangedBlocksCount=1)
complete(first, blocks)
complete(first, blocks)
assert read(first) == blocks
described = ec2.describe_snapshots(SnapshotIds=[first])["Snapshots"][0]
assert described["Description"] == "first" and described["Tags"] == [{"Key": "Name", "Value": "first"}], described

# Over a parent: what is not written is the parent's.
changes = {3: b"\0" * BLOCK, 4: b"x" * BLOCK, 1000: b"y" * BLOCK}
second = write(changes, ParentSnapshotId=first)
complete(second, changes)
expected = {index: data for index, data in (blocks | changes).items() if data.strip(b"\0")}
assert {index: data for index, data in read(second).items() if data.strip(b"\0")} == expected
changed = [block for page in pages(ebs.list_changed_blocks, FirstSnapshotId=first, SecondSnapshotId=second) for block in page["ChangedBlocks"]]
assert [block["BlockIndex"] for block in changed] == [3, 4, 1000], changed
assert "FirstBlockToken" in changed[0] and "FirstBlockToken" not in changed[2], changed

# A token begins one snapshot.
token = os.urandom(8).hex()
same = [ebs.start_snapshot(VolumeSize=1, ClientToken=token)["SnapshotId"] for _ in range(2)]
assert same[0] == same[1], same
refused("ConflictException", ebs.start_snapshot, VolumeSize=2, ClientToken=token)

# What is wrong is refused as JSON.
begun = same[0]
data = b"z" * BLOCK
other = base64.b64encode(digest(b"other").digest()).decode()
refused("ValidationException", put, snapshot=begun, index=0, data=data, Checksum=other)
refused("ValidationException", put, snapshot=begun, index=0, data=b"short")
refused("ValidationException", put, snapshot=begun, index=2048, data=data)
refused("ValidationException", put, snapshot=first, index=0, data=data)
refused("ValidationException", ebs.start_snapshot, VolumeSize=1 << 40)
missing = refused("ResourceNotFoundException", ebs.list_snapshot_blocks, SnapshotId="snap-00000000000000000")
assert missing["Reason"] == "SNAPSHOT_NOT_FOUND" and missing["ResponseMetadata"]["HTTPStatusCode"] == 404, missing
refused("ValidationException", ebs.get_snapshot_block, SnapshotId=first, BlockIndex=4, BlockToken="bm9uZQ==")
refused("ValidationException", ebs.list_snapshot_blocks, SnapshotId=first, NextToken="bm9uZQ==")
assert ebs.list_snapshot_blocks(SnapshotId=first, StartingBlockIndex=1 << 62)["Blocks"] == []
ec2.delete_snapshot(SnapshotId=begun)
ec2.delete_snapshot(SnapshotId=first)
assert {index for index, data in read(second).items() if data.strip(b"\0")} == set(expected)
wrong = boto3.Session().client("ebs", aws_secret_access_key="wrong", aws_access_key_id=session.get_credentials().access_key)
refused("InvalidSignatureException", wrong.list_snapshot_blocks, SnapshotId=second)

# Left unfinished, for another service to complete.
print(write(blocks))
