
_residua_words() {
    compset -P '*[,=]'
    compadd -- "$@"
}

_residua_path() {
    compset -P '*='
    _files
}

_residua_data() {
    if [[ $PREFIX == *\?* ]]; then
        compset -P '*[?,&]'
        compadd -S '' -- split=train split=test limit= sample= seed= size= labels=
    elif [[ $PREFIX == (*=|)demo:* ]]; then
        compset -P '*:'
        compadd -- fashion-mnist unseen digits
    elif [[ $PREFIX == *:* ]]; then
        compset -P '*[:,=]'
        _files
    else
        compset -P '*='
        compadd -S '' -- @SCHEMES@
    fi
}

_residua() {
    local word verb= flag=$words[CURRENT-1]
    for word in $words[2,CURRENT-1]; do
        if [[ $word != -* ]]; then verb=$word; break; fi
    done
    if [[ $PREFIX == --*=* ]]; then
        flag=${PREFIX%%=*}
        compset -P 1 '*='
    fi
    case "$verb $flag" in
@CASES@
        'data inspect' | 'data verify')
            if [[ $PREFIX != -* ]]; then _residua_data; return; fi ;;
    esac
    _residua_flags "$@"
}
