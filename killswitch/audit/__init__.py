"""The record outside of the store: files, exports, anchors and statements."""
