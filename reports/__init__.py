"""One style for pictures, one for pages: both give bytes to be written, and know nothing of nets."""
