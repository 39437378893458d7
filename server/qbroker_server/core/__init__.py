"""The rules about messages: plain synchronous functions of what is stored, what was asked, and the time."""
