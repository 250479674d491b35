"""What is watched for: rules, those that gpud brings, and how one sees whether one holds."""
