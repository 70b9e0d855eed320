"""The six methods, one file each, with one shape: `Config`, `PRESETS`, then `learn` or `edit`."""
