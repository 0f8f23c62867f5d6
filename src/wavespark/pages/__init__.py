"""Self-contained HTML pages: markup, numbers in words, line charts, anatomical planes and PNG
pictures."""
