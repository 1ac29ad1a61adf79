"""What keeps one adapter from working: the line, the meter, the broker, what waits. Changes nothing."""
