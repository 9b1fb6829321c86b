"""What `santacoder-load` can be told to do, a module each."""
