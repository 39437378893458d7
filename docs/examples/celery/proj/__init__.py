"""Next steps: a project with an app of its own."""
