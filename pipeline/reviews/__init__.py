"""Images that are drawn for people to review, and what these people say."""
