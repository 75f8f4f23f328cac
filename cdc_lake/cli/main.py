"""The command line's root: global options, error words, exit codes. One file a noun; no logic here."""
