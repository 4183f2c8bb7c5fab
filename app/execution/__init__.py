"""Who runs trials where: worker processes and the messages they exchange."""
