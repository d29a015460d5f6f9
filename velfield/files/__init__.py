"""Files by URL on any file system, shards written by many, progress."""
