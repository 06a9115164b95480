"""The command line: a verb a stage; a stage is imported only when its verb is spoken."""
