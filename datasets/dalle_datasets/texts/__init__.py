"""Text of strangers: decoding, captions, and the records of tables. One way for pages, tables, folders and prompts."""
