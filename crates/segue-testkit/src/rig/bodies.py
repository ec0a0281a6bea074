"""Lists the bodies in a bucket, each of which is `FOLDER/ab/HASH/COPY`: hash, size, and the attempt that an output names.

A copy whose content is not what its name says is left out.
"""

import hashlib
import json
import sys

import boto3

bucket, folder = sys.argv[1:]
s3 = boto3.client("s3")
for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=folder):
    for found in page.get("Contents", []):
        body = s3.get_object(Bucket=bucket, Key=found["Key"])["Body"].read()
        name = hashlib.sha256(body).hexdigest()
        if found["Key"].split("/")[-2] != name:
            continue
        try:
            attempt = json.loads(body).get("attempt", "-")
        except (ValueError, AttributeError):
            attempt = "-"
        print(name, len(body), attempt, sep="\t")
