"""Files on local disks and S3."""
