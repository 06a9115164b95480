"""Stories told with all the rooms below: the demonstration, the speed of this machine."""
