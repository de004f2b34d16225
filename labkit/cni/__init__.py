"""Networks as CNI has them: a plugin is a program, a configuration is JSON, a call is both. See: CNI spec."""
