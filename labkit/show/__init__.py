"""How a thing looks: text and HTML of frozen records; reads no kernel state."""
