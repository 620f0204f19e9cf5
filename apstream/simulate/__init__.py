"""The sky and camera simulator."""
