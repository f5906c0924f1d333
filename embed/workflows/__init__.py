"""The work of the commands, callable from Python with ordinary arguments. `embed.commands` parses a command line and calls one."""
