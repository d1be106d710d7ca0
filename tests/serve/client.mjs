// The SDK for JavaScript, version 3; its package is below the directory that is the argument.
import { createRequire } from "node:module";
import assert from "node:assert";
const require = createRequire(process.argv[2] + "/");
const sdk = require("@aws-sdk/client-ec2");
const ec2 = new sdk.EC2Client({ region: process.env.AWS_REGION });
const ask = (command, parameters = {}) => ec2.send(new sdk[command + "Command"](parameters));

const images = await ask("DescribeImages", { Owners: ["amazon"], Filters: [{ Name: "name", Values: ["demo"] }] });
const { Instances } = await ask("RunInstances", {
  ImageId: images.Images[0].ImageId, MinCount: 2, MaxCount: 2,
  TagSpecifications: [{ ResourceType: "instance", Tags: [{ Key: "Name", Value: "js" }] }],
});
const InstanceIds = Instances.map((one) => one.InstanceId);
assert.equal(InstanceIds.length, 2);
const described = await Promise.all(InstanceIds.map((id) => ask("DescribeInstances", { InstanceIds: [id] })));
assert.deepEqual(described.map((one) => one.Reservations[0].Instances[0].Tags[0].Value), ["js", "js"]);
const volume = await ask("CreateVolume", { AvailabilityZone: Instances[0].Placement.AvailabilityZone, Size: 1 });
await sdk.waitUntilVolumeAvailable({ client: ec2, maxWaitTime: 30 }, { VolumeIds: [volume.VolumeId] });
const snapshot = await ask("CreateSnapshot", { VolumeId: volume.VolumeId, Description: "js" });
await sdk.waitUntilSnapshotCompleted({ client: ec2, maxWaitTime: 30 }, { SnapshotIds: [snapshot.SnapshotId] });
await ask("DeleteSnapshot", { SnapshotId: snapshot.SnapshotId });
await ask("DeleteVolume", { VolumeId: volume.VolumeId });
await ask("TerminateInstances", { InstanceIds });
await sdk.waitUntilInstanceTerminated({ client: ec2, maxWaitTime: 30 }, { InstanceIds });
await assert.rejects(ask("DescribeImages", { ImageIds: ["ami-00000000000000000"] }), { name: "InvalidAMIID.NotFound" });
