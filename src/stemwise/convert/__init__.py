"""Published weights -> model folders. One file a system; nothing of a file is executed."""
