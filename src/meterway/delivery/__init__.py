"""One reliable hop: spool, send, receipt; used by adapter and concentrator alike."""
