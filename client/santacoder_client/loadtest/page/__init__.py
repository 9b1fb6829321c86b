"""One self-contained HTML page from a result: words, charts and tables, no request to anywhere."""
