"""The measured tables: runs verbs and times or scores them; owns no mathematics."""
