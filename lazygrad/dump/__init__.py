"""Looking into the compiler: the programs of a process, or of one tensor, stage by stage.

    lazygrad.dump_ir(loss, stage="fused")         a pending tensor, without running it
    lazygrad dump-ir train.py --stage loops       every program of a script (`lazygrad.cli.dump`)
    LAZYGRAD_DUMP=graph,fused python train.py     the same to standard error, nothing else changed

`options` reads the words, `listen` catches the programs, `select` takes the part asked for,
`changes` shows what each pass did.  `stages` makes text, `describe` JSON, `picture` what `dot` and
`svg` (with `layout`) draw, `report` the HTML page; `write` puts them where they belong.  Nothing
that differs between two runs (addresses, folders) is in a dump; times only where passes are shown.
"""
