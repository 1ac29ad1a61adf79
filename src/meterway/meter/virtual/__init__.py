"""Virtual meters: households, gas and water as seeded load profiles, encoded to the bytes a meter sends."""
