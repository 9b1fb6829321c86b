"""What a run leaves on disk: a result, a line per request, CSV, JUnit."""
