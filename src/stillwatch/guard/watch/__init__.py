"""From traffic to decisions, continuously: logs in, sketch partitions, scans of a window, snapshots out."""
