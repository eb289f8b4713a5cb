"""Pictures of scans and masks, thumbnails, and the viewer."""
