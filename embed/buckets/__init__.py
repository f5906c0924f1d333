"""Buckets: addresses such as gs://BUCKET/PATH and s3://BUCKET/PATH wherever a command takes a file or a folder.

Each address has a copy on this machine. What a command names is copied here before it begins, and what it changed is copied back
while it runs and when it ends, a folder's MANIFEST.json last, so that nothing is seen in part (`copies`). One process at a time
writes a folder: a lease in the bucket stands for the lock (`lease`). The bucket is what counts: a copy is made equal to it.
"""
