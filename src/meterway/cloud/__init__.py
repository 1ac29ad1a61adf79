"""Cloud: `concentrator/...` in, HTTP out."""
