"""Viridis: numbers as colours that are read in the right order, in grey and by the colour-blind.

The table is that of Stéfan van der Walt and Nathaniel Smith (2015), as matplotlib publishes it,
released under CC0: 256 colours, three bytes each, in base 85.
"""

from base64 import b85decode
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

_TABLE: Final = (
    "L;+Mp0#!r<S49O_MFv_$2wO%8Tt*9CMhss@4q-<RVn-2UM-pX66lO;iXGa!kM;K~I8EZ%yY)Bk#NF8rT9&kt?aY!"
    "L@NFsAcBXmb4bw?(4M<;hjD0oLIc}FXHM=X0rEqq2Vd`2*RMlpUxGJi!he?>KbMK*y%H-SVsf<rokLpy^*JcL3$g"
    "hD=rLO_K<L54v>hCoAyKtzW>MTb8}h(1V&K1qo^N{Ky7i9Jk-JWYx`PKrBFiaSw?I#P=|Q;RuNi#b(`I97`|SBy7"
    "Uj5k?~Hd>4}TZ}baj5S@1G+vD~UyU<hjWc15GGdJ~V~sInjWK17F=mZ0XN@pujW219FKUf0YmP2#jxKGEEpCo2Z;"
    "mW*jx2GGEOL%3bB-%?jw*GIDt3-4caAA|jwyMLD0+@4dX6Z2jwgJMCw-15evT%8jwXPPCV`G6f{rDFjU<GPB!!J6"
    "hK(bKjU$MSBZ-Y7iH#zPjUtPUA&iY7jf^3Vj3AGUAdrk8k&GXbj31MWAC!w9m5U#iiyoJX9+-+AnTj5niXNJY9-E"
    "0CoQWQth#sDZ9-oLFpobr!haaMbAESmKq=g`*g(0SeA*X~Qr-UP@gCnVeB&vcXtAQr0fhVniD6W4guYW4Aek-wkE"
    "U|qqvV1SIdoZ+mGPQa$ws|$Tcs96qIJtH?xpq6cbv?UuKD={4y>ddnaYVjwMZa%Hz-~#wZA-#zO~PwW!)Z~(Xj8>"
    "!RmNsl#${Q@WLwB$Uddr#$zWp2Uu4T&XUtq_%v)>CS#8c(aL!h8&sB8LRCmx)dC^gP(ocTUPJz=*gVRff)JcfdM~"
    "l@)jn+hv)<crlL6z4(m)Jg<*gT!tI-l7%qS`m5+BK)!GpgG%t=urL+%B@+EVbP$x7{ha-Y31@Ccob#!rvmr-yz4~"
    "AIjh!&EOr+;T+Q88`R+%*Wwx4;uzfG7~kU<;o}(O;~3}U8R_I1?Bp8m<s0$k9P{NK_U0e><{|p#BK_wi"
)


def viridis(values: NDArray[Any], *, largest: float) -> NDArray[np.uint8]:
    """(H, W) from 0 to ``largest`` and beyond -> (H, W, 3) colours; dark blue to yellow."""
    table = np.frombuffer(b85decode(_TABLE), np.uint8).reshape(256, 3)
    share = np.clip(np.asarray(values, np.float64) / max(largest, 1e-12), 0, 1)
    return table[np.rint(255 * share).astype(np.uint8)]
