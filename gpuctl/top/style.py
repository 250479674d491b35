"""Pure: where things stand on the screen. Colours are the terminal's own."""

from __future__ import annotations

from typing import Final

CSS: Final = """
Screen { background: ansi_default; color: ansi_default; layers: base over; }
Static { text-wrap: nowrap; text-overflow: ellipsis; }
#node, #host, #trouble, #keys, .keys { height: 1; width: 100%; }
.title { height: 1; width: 100%; }
.tab { width: auto; padding-right: 3; height: 1; }
#order { width: 1fr; height: 1; }
Grid {
    background: ansi_default;
    height: 1fr;
    scrollbar-size-vertical: 1;
    scrollbar-size-horizontal: 0;
    scrollbar-color: ansi_bright_black;
    scrollbar-background: ansi_default;
}
#devices { height: 4; }
#filter { height: 1; border: none; padding: 0; background: ansi_default; color: ansi_default; }
#closely { height: 1fr; background: ansi_default; scrollbar-size-vertical: 1; }
#noun { width: 100%; height: auto; }
#output {
    height: 1fr;
    border-top: solid ansi_bright_black;
    background: ansi_default;
    scrollbar-size-vertical: 1;
    scrollbar-size-horizontal: 0;
}
ModalScreen { align: center middle; background: transparent; }
.dialog {
    width: auto;
    max-width: 76;
    height: auto;
    max-height: 22;
    padding: 0 2;
    border: round ansi_bright_black;
    background: ansi_default;
}
.dialog Static { text-wrap: wrap; width: auto; max-width: 70; height: auto; }
.buttons { height: 1; width: auto; margin-top: 1; }
.buttons Button { height: 1; border: none; margin-right: 2; min-width: 9; }
.buttons Button:focus { text-style: reverse; }
Toast { max-width: 70; }
"""
